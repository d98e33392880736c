#!/bin/sh
# One location for each refusal of the gateway's own, in the shape of petclf's: errors.sh > errors.conf
# (no named locations: a request whose address nginx could not read cannot go to one)
set -eu
refusal() { # status code message [more]
  cat <<EOF
location = /.error/$1 {
    internal;
    default_type application/json;
    add_header X-Request-Id \$req_id always;
    add_header X-Content-Type-Options nosniff always;
    add_header Cache-Control no-store always;
    ${4:-}
    return $1 '{"error":{"code":"$2","message":"$3","request_id":"\$req_id"}}';
}
EOF
}
again='add_header Retry-After 1 always;'
refusal 400 bad_request "this is no request that HTTP knows"
refusal 401 unauthorized "a key is needed: curl -u NAME:SECRET"
refusal 403 forbidden "not allowed"
refusal 404 not_found "nothing is here; GET /docs tells what is"
refusal 405 method_not_allowed "this path does not take that method; Allow names those that it takes" \
  "if (\$allow = \"\") { rewrite ^ /.error/404 last; } add_header Allow \$allow always;"
refusal 408 too_slow "the request took too long to arrive"
refusal 411 length_required "say how long the body is"
refusal 413 too_large "the request is larger than 10 MB"
refusal 414 too_long "the address is too long"
refusal 429 too_many_requests "too many requests from this address; wait a second" "$again"
refusal 431 headers_too_large "the headers are too large"
refusal 500 internal_error "the server failed; the reason is in its log"
refusal 503 busy "the server is busy or starting; try again" "$again"
refusal 504 too_slow "the server took too long" "if (\$unreached) { rewrite ^ /.error/503 last; } $again"
