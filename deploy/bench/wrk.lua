-- What wrk asks and tells. Words after `--`: a token, then for releases the first and the last
-- number of the agreements that they may approve, in this order and each once.
local token, first, last

function init(args)
  token, first, last = args[1], tonumber(args[2]), tonumber(args[3])
  if token and token ~= "" then
    wrk.headers["Authorization"] = "Bearer " .. token
  end
end

function request()
  if not first then
    return wrk.format()
  end
  local n = first
  if n == last then
    wrk.thread:stop()
  end
  first = first + 1
  wrk.headers["If-Match"] = '"4"'
  wrk.headers["Idempotency-Key"] = "bench-k-" .. n
  wrk.headers["Content-Type"] = "application/json"
  local path = "/api/v1/escrows/bench-e-" .. n .. "/milestones/bench-m-" .. n .. "/approve"
  return wrk.format("POST", path, nil, "{}")
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.4f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
