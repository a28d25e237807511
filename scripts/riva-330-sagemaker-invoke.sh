#!/usr/bin/env bash
# One call of the endpoint, by any of its routes, with the command that one can type instead.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/sagemaker.sh"

about 'Sends a recording to the endpoint; the answer goes to stdout, the aws command that does it to stderr.' \
    '  auto      a form; the gateway chooses        http, grpc  a form; that route and no other' \
    '  speakers  who said what (--speakers at most) raw         the recording itself as the body' \
    '  json      base64 in JSON                     async       through S3, with an endpoint of --async' \
    '  two-way   live, as it would be spoken (needs Python 3.12; docs/sagemaker.md)' \
    'A real-time endpoint takes 25 MB and answers within a minute; what is larger or longer takes async.' \
    'The printed command can be typed again where its body is a file that stays: with raw, or with --keep.' \
    'An endpoint that sleeps (--auto-stop) needs 20 to 40 minutes for its first answer. async says where in S3 the answer' \
    'will be, and waits for it; it comes there, too, when this is ended meanwhile.'
takes_words 'ROUTE [RECORDING]'
flag language TAG en-US 'what is spoken'
flag speakers N 4 'for speakers: how many at most'
flag wait SECONDS "$ASYNC_WAIT_S" 'for async: until it is waited for no longer'
flag keep FILE '' 'keep the body of the request, so that the printed command can be typed again'
flag python COMMAND "${DEPLOY_PYTHON312:-python3.12}" "for two-way: a Python that has AWS's HTTP/2 package"
parse "$@"

ATTRIBUTES=X-Amzn-SageMaker-Custom-Attributes
MOST_BYTES=26214400

# form [NAME VALUE]…: the recording with fields beside it, as multipart/form-data in $body
form() {
    boundary=riva-$(content "$clip $*")
    {
        printf -- '--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: %s\r\n\r\n' \
            "$boundary" "$(basename "$clip" | tr -c 'A-Za-z0-9._\n-' _)" "$(media_type)"
        cat "$clip"
        while (($# > 0)); do
            printf '\r\n--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s' "$boundary" "$1" "$2"
            shift 2
        done
        printf '\r\n--%s--\r\n' "$boundary"
    } >"$body"
    type="multipart/form-data; boundary=$boundary"
}

media_type() {
    case ${clip,,} in
    *.wav) echo audio/wav ;;
    *.flac) echo audio/flac ;;
    *.ogg | *.opus) echo audio/ogg ;;
    *.mp3) echo audio/mpeg ;;
    *.mp4 | *.m4a) echo audio/mp4 ;;
    *.webm) echo audio/webm ;;
    *) echo application/octet-stream ;;
    esac
}

# invoke [ATTRIBUTES]: $body as $type
invoke() {
    local -a call=(sagemaker-runtime invoke-endpoint --endpoint-name "$endpoint" --content-type "$type" --cli-read-timeout "$CALL_LIMIT_S")
    if [ -n "${1:-}" ]; then call+=(--custom-attributes "$1"); fi
    call+=(--body "fileb://$body")
    (($(stat --format %s "$body") <= MOST_BYTES)) ||
        fail "$EXIT_USAGE" "$clip is larger than the 25 MB of a real-time endpoint" "Compress it (FLAC, Opus), or use async."
    print_call "${call[@]}" answer.json
    if [[ $body == "$SCRATCH"/* ]]; then say 'that body is deleted at the end of this; to type the command again, say --keep FILE'; fi
    if dry; then return 0; fi
    aws "${call[@]}" "$SCRATCH/answer.json" >"$SCRATCH/told" || fail "$EXIT_FAILED" "the endpoint refused: see above"
    say "route: $(jq -r '.CustomAttributes // "not told"' "$SCRATCH/told")"
    cat "$SCRATCH/answer.json"
    printf '\n'
}

invoke_async() {
    local attributes="language_code=${opt[language]}"
    if ! dry && ! is_async; then
        fail "$EXIT_USAGE" "$endpoint does not read from S3" "Make one that does: riva-320-sagemaker-deploy.sh --async --deployment NAME"
    fi
    print_call s3 cp "$clip" "s3://$bucket/sagemaker/in/example"
    print_call sagemaker-runtime invoke-endpoint-async --endpoint-name "$endpoint" --content-type "$(media_type)" \
        --custom-attributes "$attributes" --invocation-timeout-seconds "$ASYNC_LIMIT_S" \
        --input-location "s3://$bucket/sagemaker/in/example"
    if dry; then return 0; fi
    call_async "$clip" "$(media_type)" "$SCRATCH/answer.json" --custom-attributes "$attributes" ||
        fail "$EXIT_UNAVAILABLE" "no result came: see above" "Look: $(command_for riva-340-sagemaker-status.sh)"
    cat "$SCRATCH/answer.json"
    printf '\n'
}

two_way() {
    local program=$LIB/../sagemaker/two_way.py
    printf '%s %s --endpoint %s --region %s --language %s %s\n' "${opt[python]}" "$program" "$endpoint" "$region" "${opt[language]}" "$clip" >&2
    if dry; then return 0; fi
    command -v "${opt[python]}" >/dev/null ||
        fail "$EXIT_USAGE" "'${opt[python]}' is not installed" \
            "Two-way streams need Python 3.12 and AWS's package; the aws command has no such call:" \
            'python3.12 -m venv two-way && two-way/bin/pip install "aws-sdk-sagemaker-runtime-http2[awscrt]~=0.12.0"' \
            "then: ${0##*/} two-way RECORDING.wav --python two-way/bin/python"
    "${opt[python]}" "$program" --endpoint "$endpoint" --region "$region" --language "${opt[language]}" "$clip"
}

needs aws jq
route=${words[0]:-}
clip=${words[1]:-$CLIP}
case $route in auto | http | grpc | speakers | raw | json | async | two-way) ;;
*) fail "$EXIT_USAGE" "name a route: auto, http, grpc, speakers, raw, json, async or two-way" "More: ${0##*/} --help" ;;
esac
[[ ${opt[wait]} =~ ^[0-9]{1,6}$ ]] || fail "$EXIT_USAGE" "--wait '${opt[wait]}' is not a number of seconds"
[ -r "$clip" ] || fail "$EXIT_USAGE" "the recording '$clip' cannot be read"
sm_names
type='' boundary=''
body=${opt[keep]:-$SCRATCH/body}
case $route in
auto) form language_code "${opt[language]}" && invoke ;;
http | grpc) form language_code "${opt[language]}" && invoke "$ATTRIBUTES=/invocations/$route" ;;
speakers)
    form language_code "${opt[language]}" speaker_diarization true max_speakers "${opt[speakers]}"
    invoke
    ;;
raw)
    body=$clip type=$(media_type)
    invoke "transport=auto;language_code=${opt[language]}"
    ;;
json)
    as_json "$clip" "${opt[language]}" >"$body"
    type=application/json
    invoke
    ;;
async) invoke_async ;;
two-way) two_way ;;
esac
