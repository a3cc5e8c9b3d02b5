-- ARGV: task. Whoever has begun it before owns it no more. Returns {what became of it, body, version, how often it was
-- begun since something of it was last done}.
local id = ARGV[1]
local state = redis.call('HGET', job, 'state')
local body = redis.call('HGET', open, id)
if not body then return {'gone'} end
if state ~= 'running' then return {'over'} end
redis.call('ZREM', outbox, id)
local version = redis.call('HINCRBY', begun, id, 1)
if version == 1 and string.sub(body, 1, 1) == 'l' then redis.call('HINCRBY', job, 'links_queued', -1) end
return {'yours', body, version, redis.call('HINCRBY', P .. 'tries', id, 1)}
