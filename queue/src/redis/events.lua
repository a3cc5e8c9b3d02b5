-- The stream of events. KEYS[1]: treeferry:events. ARGV: how many events it holds, who tells (no two processes have the
-- same), the number of the first event, how many there are, the name of the field that has them, and they themselves. An
-- entry has some hundred events, since an entry for each would cost Redis more than all else; so entries say how many
-- they have, and `total` counts all that were ever told: the stream is cut by events and not by entries. Returns how many
-- entries went. ARGV[7]: 0 when those before are to be asked for again if they are not here, as a Redis that was killed
-- forgets what it has not written to its disk; then nothing is done, and -1 less the number of the one that is wanted
-- next is returned.
local stream, source = KEYS[1], ARGV[2]
local most, first, n = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last = stream .. ':last:' .. source
-- asked for again, the answer having been lost
local known = tonumber(redis.call('GET', last) or '-1')
if known >= first then return 0 end
if known + 1 < first and ARGV[7] == '0' then return -known - 2 end
local total = tonumber(redis.call('GET', stream .. ':total') or '0') + n
-- the first to write: what fails here has changed nothing
redis.call('XADD', stream, '*', 'source', source, 'first', first, 'count', n, 'total', total, ARGV[5], ARGV[6])
redis.call('SET', stream .. ':total', total)
redis.call('SET', last, first + n - 1, 'EX', 3600)
-- `cut`: the total of the last entry that went
local cut, gone = tonumber(redis.call('GET', stream .. ':cut') or '0'), 0
while total - cut > most do
  local old = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local at = total
  for i = 1, old and #old[2] or 0, 2 do
    if old[2][i] == 'total' then at = tonumber(old[2][i + 1]) end
  end
  -- the newest stays, however many it has
  local length = redis.call('XLEN', stream)
  if length <= 1 or total - at < most then break end
  redis.call('XTRIM', stream, 'MAXLEN', length - 1)
  cut, gone = at, gone + 1
end
if gone > 0 then redis.call('SET', stream .. ':cut', cut) end
return gone
