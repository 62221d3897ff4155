-- Arguments: how requests are made (each, new, range), the size of an object, how many objects, the number of the first, further header lines.
local how, size, count, first, fields
local n = 0
local made = {}
local before, after

function init(args)
  how, size, count, first = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  fields = (args[5] or ""):gsub("|", "\r\n")
  before = "GET /" .. args[2] .. "/"
  after = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n" .. fields
  if how == "each" and count <= 4096 then
    for i = 0, count - 1 do made[i] = before .. i .. after .. "\r\n" end
  end
end

-- 7919 is prime: all objects come, each once a turn, in an order that is far from that of storing.
function request()
  n = n + 1
  if how == "new" then return before .. (first + n) .. after .. "\r\n" end
  if how == "range" then
    local at = (n * 7919) % (size / 65536) * 65536
    return before .. "0" .. after .. string.format("Range: bytes=%d-%d\r\n\r\n", at, at + 65535)
  end
  local i = (first + n) * 7919 % count
  return made[i] or before .. i .. after .. "\r\n"
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"bytes":%d,"microseconds":%d,"p50":%d,"p99":%d,"status":%d,"failed":%d}\n', summary.requests, summary.bytes,
    summary.duration, latency:percentile(50), latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
