-- What nginx's own directives cannot do: a least speed for bodies, errors in petclf's shape, wrong keys slowed down, answers
-- counted by status, a server that is not ready passed by, and a candidate asked beside the live version. nginx.conf says where each function is called.
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

-- Which of the two is asked first while there is a spare: the server, unless it says that it cannot answer and the spare can.
-- A server's port opens seconds before its workers can answer, and what arrives until then would be lost. A server that is
-- only slow to say how it is, or misses a worker, stays first: its spare may be a new image that nobody has tested yet
local LOOK_EVERY, LOOK_FOR = 1, 500 -- seconds, milliseconds
local MOST_STATE = 1024 -- bytes

-- What a server says of itself (serving/health.py); "gone" if nobody listens, nothing if it does not say
local function state_of(host, port)
  local socket = ngx.socket.tcp()
  socket:settimeout(LOOK_FOR)
  local connected, why = socket:connect(host, port)
  if not connected then return why == "connection refused" and "gone" or nil end
  local answer, rest
  if socket:send("GET /ready HTTP/1.0\r\n\r\n") then answer, why, rest = socket:receive(MOST_STATE) end
  socket:close()
  return (answer or rest or ""):match('"state": *"(%a+)"')
end

local function can_answer(state)
  return state == "ready" or state == "degraded"
end

-- What one process finds is for all of them, and holds until something else is known
local function look(premature, server, spare, port)
  if premature then return end
  local state = state_of(server, port)
  if state then counts:set("spare first", not can_answer(state) and can_answer(state_of(spare, port))) end
  ngx.timer.at(LOOK_EVERY, look, server, spare, port)
end

function gateway.look_who_is_ready(server, spare, port)
  if ngx.worker.id() == 0 then ngx.timer.at(0, look, server, spare, port) end
end

function gateway.first()
  return counts:get("spare first") and "spare_" or ""
end

-- The candidate that is asked beside the live version (docs/shadow.md); none, unless nginx.conf names one
local candidate
local SMALL_AT_ONCE = 8 -- questions to it, of all processes together; what finds no room is not asked
local LARGE_AT_ONCE = 1 -- the same with a body above LARGE, of which the server makes several copies
local LARGE = 1048576
local CONNECT, SEND, ANSWER = 1000, 5000, 12000 -- milliseconds
local SLOT_SECONDS = 60 -- after which the room of a process that died is free again
local PIECE = 65536

local function asked_beside(result)
  return string.format('petclf_gateway_shadow_total{result="%s"}', result)
end

function gateway.ask_beside(version, share, host, port)
  candidate = { path = "/predictions/petclf/" .. version, version = version, share = share, host = host, port = port }
  for _, result in ipairs({ "answered", "refused", "failed", "no_room" }) do counts:add(asked_beside(result), 0) end
end

local function take_slot(kind, most)
  for number = 1, most do
    local slot = "slot " .. kind .. number
    if counts:add(slot, true, SLOT_SECONDS) then return slot end
  end
end

-- The body as the client sent it: a string, or an open file, which outlives the name that nginx is about to remove
local function body_of_request()
  local body = ngx.req.get_body_data()
  if body then return body, nil, #body end
  local path = ngx.req.get_body_file()
  local file = path and io.open(path, "rb")
  if not file then return nil, nil, 0 end
  local length = file:seek("end")
  file:seek("set")
  return nil, file, length
end

local function send(socket, question)
  local sent = socket:send({ question.head, question.body or "" })
  if question.body or not sent then return sent end
  local late = ngx.now() + SEND / 1000
  for piece in function() return question.file:read(PIECE) end do
    sent = ngx.now() < late and socket:send(piece)
    if not sent then return end
  end
  return sent
end

-- Read an answer to its end, or the server would see a broken connection
local function read_rest(socket)
  local length
  repeat
    local line = socket:receive("*l")
    length = line and line:lower():match("^content%-length: *(%d+)") or length
  until not line or line == ""
  if length then socket:receive(tonumber(length)) end
end

-- The status of the candidate's answer, or nothing
local function status_of(question)
  local socket = ngx.socket.tcp()
  socket:settimeouts(CONNECT, SEND, ANSWER)
  if not socket:connect(candidate.host, candidate.port) then return end
  local line = send(socket, question) and socket:receive("*l")
  if line then read_rest(socket) end
  socket:close()
  return line and line:match("^HTTP/1%.[01] (%d+)")
end

local function ask(premature, question)
  local fine, status = true, nil
  if not premature then fine, status = pcall(status_of, question) end
  if question.file then question.file:close() end
  counts:delete(question.slot)
  if not fine then ngx.log(ngx.ERR, "asking the candidate failed: ", status) end
  counts:incr(asked_beside(fine and status and (status == "200" and "answered" or "refused") or "failed"), 1, 0)
end

local function head_of_question(length)
  local kind = ngx.var.body_type ~= "" and "Content-Type: " .. ngx.var.body_type .. "\r\n" or ""
  return string.format(
    "POST %s HTTP/1.1\r\nHost: petclf\r\nConnection: close\r\n%sAccept: application/json\r\nX-Request-Id: %s\r\nX-Petclf-Arrived: %.3f\r\nContent-Length: %d\r\n\r\n",
    candidate.path, kind, ngx.var.req_id, ngx.now(), length)
end

-- Ask the candidate what the live version has just answered; called when the answer is out, so that no client waits for it.
-- scripts/shadow.py knows the rule by which request ids are chosen
function gateway.shadow()
  if not candidate or ngx.status ~= 200 or ngx.var.shadowed ~= "1" then return end
  if ngx.var.upstream_http_x_petclf_version == candidate.version then return end -- it is the live version now
  if ngx.crc32_short(ngx.var.req_id) % 100 >= candidate.share then return end
  local body, file, length = body_of_request()
  if length == 0 then return end
  local slot
  if length > LARGE then slot = take_slot("large", LARGE_AT_ONCE) else slot = take_slot("small", SMALL_AT_ONCE) end
  local question = { head = head_of_question(length), body = body, file = file, slot = slot }
  if slot and ngx.timer.at(0, ask, question) then return end
  if slot then counts:delete(slot) end
  if file then file:close() end
  counts:incr(asked_beside("no_room"), 1, 0)
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
  if candidate then
    ngx.print(family("petclf_gateway_shadow_total", "counter", "requests that the candidate was to be asked beside the live version, by what became of it", counted("petclf_gateway_shadow_total")))
  end
end

return gateway
