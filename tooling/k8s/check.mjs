// Check custom resources against their CRDs: a JSON list on standard input, one line a mistake on standard output.
// Values are checked by the packages' validators, names of fields by TypeScript's types: CRDs drop unknown fields without a word.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const PACKAGES = {
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

const resources = JSON.parse(readFileSync(0, "utf8"));
const mistakes = [];
const lines = [];
for (const [index, resource] of resources.entries()) {
  const path = `@kubernetes-models/${PACKAGES[resource.apiVersion.split("/")[0]]}/${resource.apiVersion}/${resource.kind}`;
  const models = await import(path);
  try {
    new models[resource.kind](resource).validate();
  } catch (error) {
    mistakes.push(`${resource.kind} ${resource.metadata.name}: ${error.message}`);
  }
  lines.push(`import type { I${resource.kind} as T${index} } from "${path}";`);
  lines.push(`export const r${index}: T${index} = ${JSON.stringify(resource)};`);
}

const folder = mkdtempSync(join(dirname(fileURLToPath(import.meta.url)), "checked-"));
const file = join(folder, "resources.ts");
writeFileSync(file, lines.join("\n"));
const options = { noEmit: true, strict: true, skipLibCheck: true, types: [], module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext };
for (const found of ts.getPreEmitDiagnostics(ts.createProgram([file], options))) {
  const line = found.file ? found.file.getLineAndCharacterOfPosition(found.start).line : 0;
  const resource = resources[Math.floor(line / 2)];
  mistakes.push(`${resource.kind} ${resource.metadata.name}: ${ts.flattenDiagnosticMessageText(found.messageText, " ")}`);
}
rmSync(folder, { recursive: true });
for (const mistake of mistakes) console.log(mistake);
