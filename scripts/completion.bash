# `source scripts/completion.bash` lets bash complete petclf's tools and options. Written by `make pages`.
_petclf() {
  local words=""
  case "$COMP_CWORD ${COMP_WORDS[1]} ${COMP_WORDS[2]}" in
    "1 "*) words="demo tour predict manifest doubtful train fit evaluate export register retrain build_archive serve models shadow make_key smoke_test score_live late_labels drift score_many" ;;
    *" demo "*) words="--model-store --previous --config --metrics-config --log-config --host --port --management-host --management-port --metrics-host --metrics-port --ready-host --ready-port --workers --ready-seconds --drain-seconds --java-options" ;;
    *" tour "*) words="--folder --photos" ;;
    *" predict "*) words="--list --json --csv --labelled --explain --server --model --version --key-file --jobs --retries --timeout" ;;
    *" manifest "*) words="--params --output --keep-splits" ;;
    *" doubtful "*) words="--manifest --params" ;;
    *" train "*) words="--params --manifest --output --outliers --minutes --fresh" ;;
    *" fit "*) words="--params --manifest --weights --outliers" ;;
    *" evaluate "*) words="--params --manifest --weights --reports --photos --outliers --before" ;;
    *" export "*) words="--params --weights --reports --output" ;;
    *" register "*) words="--weights --reports --model --manifest" ;;
    *" retrain "*) words="--outliers --labelled --late-labels --log --minutes --version --gate --watch --params --work --fresh --dry-run --server --store --model --key-file --predictions-key-file --ca" ;;
    *" build_archive "*) words="--model --output --replace --keep" ;;
    *" serve "*) words="--model-store --previous --config --metrics-config --log-config --host --port --management-host --management-port --metrics-host --metrics-port --ready-host --ready-port --workers --ready-seconds --drain-seconds --java-options" ;;
    "2 models "*) words="list register verify shadow promote rollback retire history" ;;
    *" models list") words="--server --store --model --key-file --predictions-key-file --ca --json" ;;
    *" models register") words="--server --store --model --key-file --predictions-key-file --ca --json --workers --why" ;;
    *" models verify") words="--server --store --model --key-file --predictions-key-file --ca --json --jobs --gate" ;;
    *" models shadow") words="--server --store --model --key-file --predictions-key-file --ca --json --share --margin --labels --since --max-age" ;;
    *" models promote") words="--server --store --model --key-file --predictions-key-file --ca --json --gate --watch --force --why" ;;
    *" models rollback") words="--server --store --model --key-file --predictions-key-file --ca --json --workers --why" ;;
    *" models retire") words="--server --store --model --key-file --predictions-key-file --ca --json --why" ;;
    *" models history") words="--server --store --model --key-file --predictions-key-file --ca --json --at" ;;
    *" shadow "*) words="--candidate --live --share --margin --labels --since --max-age --json" ;;
    *" make_key "*) words="" ;;
    *" smoke_test "*) words="--model --archive --wait" ;;
    *" score_live "*) words="--json --report --show-photos --at-least --mlflow --server --model --version --key-file --jobs --retries --timeout" ;;
    *" late_labels "*) words="--labels --known --archive --json --report --listen --every" ;;
    *" drift "*) words="--reference --model --version --json --report --listen --seconds" ;;
    *" score_many "*) words="--output --archive --model-store --model --workers --part --address --allow-host --retry --json" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _petclf petclf
