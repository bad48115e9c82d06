-- What wrk sends:  wrk … -s requests.lua URL -- KIND PATH COUNT
-- KIND is get, put or execute; %d in PATH is a random number below COUNT. The last line printed is the figures, as JSON.

local formatted, notes, sent = {}, {}, 0
local kind, path, count

local value = '{"name":"user %d","likes":["coffee","tea"],"visits":%d,"score":%.6f,"note":"%s"}'

function init(args)
    kind, path, count = args[1], args[2], tonumber(args[3])
    math.randomseed(os.time() * 1000 + count)
    wrk.headers["Content-Type"] = "application/json"
    for n = 1, 256 do
        notes[n] = string.format(string.rep("%08x", 8), math.random(0, 2 ^ 30), math.random(0, 2 ^ 30),
            math.random(0, 2 ^ 30), math.random(0, 2 ^ 30), math.random(0, 2 ^ 30), math.random(0, 2 ^ 30),
            math.random(0, 2 ^ 30), math.random(0, 2 ^ 30))
    end
end

local function get(number)
    return wrk.format("GET", string.format(path, number), { Host = wrk.headers["Host"] })
end

local function new_value()  -- another one each time: SQLite skips pages that do not change
    sent = sent + 1
    return string.format(value, sent, sent, sent / 7, notes[math.random(256)])
end

function request()
    local number = math.random(0, count - 1)
    if kind == "put" then
        return wrk.format("PUT", string.format(path, number), nil, '{"value":' .. new_value() .. "}")
    elseif kind == "execute" then
        local key = string.format(path, number)
        return wrk.format("POST", "/v1/execute", nil, '{"ops":[{"op":"value","namespace":"user-42","key":"' .. key .. '"}]}')
    elseif count > 10000 then
        return get(number)
    end
    formatted[number] = formatted[number] or get(number)
    return formatted[number]
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"max":%d,"refused":%d,"broken":%d,"timeouts":%d}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
        errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
