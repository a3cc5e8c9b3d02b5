-- ARGV: task, token (drawn by the asker, never twice). Whoever has begun it before owns it no more. Returns {what became
-- of it, body, whether it was begun before, how often it was begun since something of it was last done}.
local id, token = ARGV[1], ARGV[2]
local state = redis.call('HGET', job, 'state')
local body = redis.call('HGET', open, id)
if not body then return {'gone'} end
if state ~= 'running' then return {'over'} end
redis.call('ZREM', outbox, id)
local again = redis.call('HEXISTS', begun, id)
redis.call('HSET', begun, id, token .. ':0')
if again == 0 and string.sub(body, 1, 1) == 'l' then redis.call('HINCRBY', job, 'links_queued', -1) end
return {'yours', body, again, redis.call('HINCRBY', P .. 'tries', id, 1)}
