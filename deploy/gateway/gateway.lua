-- What nginx's own directives cannot do: a least speed for bodies, errors in petclf's shape, wrong keys slowed down, and
-- answers counted by status. nginx.conf says where each function is called.
local gateway = {}
local counts = ngx.shared.counts

local GRACE = 10 -- seconds in which a body may arrive as slowly as it likes
local SLOWEST = 32768 -- bytes a second after that
local EVERYBODY = 1000 -- requests at once: limit_conn everybody says the same
local WRONG_KEY_SECONDS = 1
local MOST_WAITING = 200 -- answers to wrong keys that wait in this process
local waiting = 0

local ERRORS = { -- by status
  [400] = { "bad_request", "this is no request that HTTP knows" },
  [401] = { "unauthorized", "a key is needed: curl -u NAME:SECRET" },
  [404] = { "not_found", "nothing is here; GET /docs tells what is" },
  [405] = { "method_not_allowed", "this path does not take that method; Allow names those that it takes" },
  [408] = { "too_slow", "the request took too long to arrive" },
  [411] = { "length_required", "say how long the body is" },
  [413] = { "too_large", "the request is larger than 10 MB" },
  [414] = { "too_long", "the address is too long" },
  [429] = { "too_many_requests", "too many requests from this address; wait a second" },
  [431] = { "headers_too_large", "the headers are too large" },
  [500] = { "internal_error", "the server failed; the reason is in its log" },
  [501] = { "not_implemented", "this transfer encoding is not known; use chunked, or a length" },
  [503] = { "busy", "the server is busy or starting; try again" },
  [504] = { "too_slow", "the server took too long" },
  [505] = { "version_not_supported", "use HTTP/1.1" },
}
local TOO_MANY_AT_ONCE = { "too_many_requests", "too many requests at once from this address; wait for their answers" }
local OTHER_ARGUMENTS = { "bad_request", "PUT takes min_worker and max_worker up to 99, and synchronous=false" }
local DEAR = { "dear_request", "this takes long to read and gives way to other requests now; send it again, or a smaller photo" }
local UNREADABLE_FORM = { "bad_request", "the form cannot be read: each part needs a Content-Disposition with a name" }
local CROWDED = { "busy", "too many requests at once from everybody; try again" }

-- nginx tells that limit_conn refused a request, but not which of them
local function is_crowded()
  return tonumber(ngx.var.connections_writing) >= EVERYBODY
end

-- End a request whose body arrives too slowly. client_body_timeout counts between two reads only
local function watch()
  ngx.sleep(GRACE)
  for second = 1, math.huge do
    if tonumber(ngx.var.request_length) < SLOWEST * second then ngx.exit(418) end -- which becomes 408: at that one nginx hangs up without a word
    ngx.sleep(1)
  end
end

function gateway.read_body()
  if not ngx.var.http_content_length and not ngx.var.http_transfer_encoding then return end
  local watcher = ngx.thread.spawn(watch)
  ngx.req.read_body()
  ngx.thread.kill(watcher)
end

-- Who guesses keys gets an answer a second from each connection; a right key never waits
local function slow_down()
  if not ngx.var.http_authorization or waiting >= MOST_WAITING then return end
  waiting = waiting + 1
  ngx.sleep(WRONG_KEY_SECONDS)
  waiting = waiting - 1
end

-- TorchServe answers 500 to a form that it cannot take apart, and a stranger's mistake must not look like our fault. The
-- handler's own 500 has the version; a crashed worker's always has this length: {"code": 500, ..., "message": "Worker died."}
local WORKER_DIED = "84"
local function is_unreadable_form()
  local is_form = (ngx.var.http_content_type or ""):lower():find("^%s*multipart/")
  return is_form and not ngx.var.upstream_http_x_petclf_version and ngx.var.upstream_http_content_length ~= WORKER_DIED
end

-- The status and the text of a refusal of the gateway's own
local function refusal(status)
  if status == 403 then status = ngx.var.server_name == "management" and 401 or 404 end -- no file of keys: nobody may
  if status == 405 and ngx.var.allow == "" then status = 404 end
  if status == 504 and ngx.var.unreached == "1" then status = 503 end
  if status == 503 and ngx.var.upstream_http_x_petclf_refusal == "dear_request" then return 503, DEAR end
  if status == 500 and is_unreadable_form() then return 400, UNREADABLE_FORM end
  if status == 400 and ngx.var.refused_args == "1" then return 400, OTHER_ARGUMENTS end
  if status == 429 and ngx.var.limit_req_status ~= "REJECTED" then
    if is_crowded() then return 503, CROWDED end
    return 429, TOO_MANY_AT_ONCE
  end
  return status, ERRORS[status] or ERRORS[500]
end

function gateway.answer_error()
  local status, words = refusal(tonumber(ngx.var.uri:match("%d+$")))
  if status == 401 then slow_down() end
  if status == 405 then ngx.header["Allow"] = ngx.var.allow end
  if status == 429 or status >= 503 then ngx.header["Retry-After"] = words == DEAR and "2" or "1" end
  local body = string.format('{"error":{"code":"%s","message":"%s","request_id":"%s"}}', words[1], words[2], ngx.var.req_id)
  ngx.status = status
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

-- Which limit of the gateway's refused the request that ends now, if one did
local function reason(status)
  if status == 408 then return "slow_body" end
  if ngx.var.limit_req_status == "REJECTED" then return "rate" end
  if ngx.var.limit_conn_status == "REJECTED" then return status == 503 and "everybody" or "connections" end
end

local function answered(server, status)
  return string.format('petclf_gateway_requests_total{server="%s",status="%d"}', server, status)
end

local function refused(why)
  return string.format('petclf_gateway_refused_total{reason="%s"}', why)
end

-- Prometheus sees an increase only from a value that was there before
function gateway.begin_to_count()
  for _, server in ipairs({ "api", "management" }) do
    for _, status in ipairs({ 200, 401, 408, 429, 500, 503, 504 }) do counts:add(answered(server, status), 0) end
  end
  for _, why in ipairs({ "rate", "connections", "everybody", "slow_body" }) do counts:add(refused(why), 0) end
end

function gateway.count()
  local status = ngx.status
  local why = reason(status)
  counts:incr(answered(ngx.var.server_name, status), 1, 0)
  if why then counts:incr(refused(why), 1, 0) end
end

local function family(name, kind, help, samples)
  local head = string.format("# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
  return head .. table.concat(samples, "\n") .. "\n"
end

local function counted(name)
  local samples = {}
  for _, key in ipairs(counts:get_keys(0)) do
    if key:find(name, 1, true) == 1 then samples[#samples + 1] = key .. " " .. counts:get(key) end
  end
  table.sort(samples)
  return samples
end

function gateway.metrics()
  local connections = {}
  for _, state in ipairs({ "reading", "writing", "waiting" }) do
    connections[#connections + 1] = string.format('petclf_gateway_connections{state="%s"} %s', state, ngx.var["connections_" .. state])
  end
  ngx.header["Content-Type"] = "text/plain; version=0.0.4"
  ngx.print(
    family("petclf_gateway_connections", "gauge", "connections of clients, by what they do", connections),
    family("petclf_gateway_connections_limit", "gauge", "requests about photos that may be here at once", { "petclf_gateway_connections_limit " .. EVERYBODY }),
    family("petclf_gateway_connections_accepted_total", "counter", "connections accepted", { "petclf_gateway_connections_accepted_total " .. ngx.var.connection }),
    family("petclf_gateway_requests_total", "counter", "answers, by server (api, management) and status", counted("petclf_gateway_requests_total")),
    family("petclf_gateway_refused_total", "counter", "requests refused by a limit: rate or connections of an address, connections of everybody, a slow_body", counted("petclf_gateway_refused_total"))
  )
end

return gateway
