-- The requests of wrk and its report. Arguments after `--`: a token, then for milestone releases the
-- first and the last number of the escrows; it approves each once, then ends.
local ffi = require("ffi")
ffi.cdef [[
  int getpid(void);
  int kill(int pid, int number);
  typedef struct { long seconds; long nanoseconds; } moment;
  int clock_gettime(int clock, moment *found);
]]

local MONOTONIC = 1
local moment = ffi.new("moment")

local function now()
  ffi.C.clock_gettime(MONOTONIC, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

local SIGINT = 2 -- wrk sleeps for its whole duration unless interrupted
local next_one, last, tried
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  next_one, last = tonumber(args[2]), tonumber(args[3])
  if args[1] and args[1] ~= "" then
    wrk.headers["Authorization"] = "Bearer " .. args[1]
  end
  if next_one then
    wanted, good = last - next_one + 1, 0 -- global: `done` reads them
    response = count
    wrk.headers["If-Match"] = '"4"'
    wrk.headers["Content-Type"] = "application/json"
  end
end

function request()
  if not next_one then
    return wrk.format()
  end
  if not tried then
    tried = true -- wrk asks once to see what comes, and sends it nowhere
    return wrk.format("GET", "/nothing-yet")
  end
  local n = next_one
  begun = begun or now() -- global, as `ended`
  if n > last then
    return wrk.format("GET", "/nothing-left") -- while the others' last answers are on their way
  end
  next_one = n + 1
  wrk.headers["Idempotency-Key"] = "bench-k-" .. n
  local path = "/api/v1/escrows/bench-e-" .. n .. "/milestones/bench-m-" .. n .. "/approve"
  return wrk.format("POST", path, nil, "{}")
end

function count(status)
  if status == 200 then
    good = good + 1
    if good == wanted then
      ended = now() -- it takes wrk a while more to stop
      ffi.C.kill(ffi.C.getpid(), SIGINT)
    end
  end
end

function done(summary, latency, _)
  local e = summary.errors
  local good = threads[1]:get("good")
  local errors = e.connect + e.read + e.write + e.timeout
  local ended = threads[1]:get("ended")
  local seconds = ended and ended - threads[1]:get("begun") or summary.duration / 1e6
  io.write(string.format(
    '{"requests": %d, "seconds": %.4f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    good or summary.requests, seconds, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, good and errors or errors + e.status))
end
