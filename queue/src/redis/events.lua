-- The stream of events. KEYS[1]: treeferry:events. ARGV: how many events it holds, who tells (no two processes have the
-- same), the number of the first event, how many there are, and they themselves, lines of JSON. An entry has some
-- hundred events, since an entry for each would cost Redis more than all else; so entries say how many they have, and
-- `total` counts all that were ever told: the stream is cut by events and not by entries. Returns how many entries went.
local stream, source = KEYS[1], ARGV[2]
local most, first, n = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last = stream .. ':last:' .. source
-- asked for again, the answer having been lost
if tonumber(redis.call('GET', last) or '-1') >= first then return 0 end
local total = tonumber(redis.call('GET', stream .. ':total') or '0') + n
-- the first to write: what fails here has changed nothing
redis.call('XADD', stream, '*', 'source', source, 'first', first, 'count', n, 'total', total, 'lines', ARGV[5])
redis.call('SET', stream .. ':total', total)
redis.call('SET', last, first + n - 1, 'EX', 3600)
local gone = 0
while true do
  local old = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not old then break end
  local at = 0
  for i = 1, #old[2], 2 do
    if old[2][i] == 'total' then at = tonumber(old[2][i + 1]) end
  end
  -- the newest stays, however many it has
  local length = redis.call('XLEN', stream)
  if length == 1 or total - at < most then break end
  redis.call('XTRIM', stream, 'MAXLEN', length - 1)
  gone = gone + 1
end
return gone
