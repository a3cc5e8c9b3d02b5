-- ARGV: task. Whoever has begun it before owns it no more. Returns {what became of it, body, version}.
local id = ARGV[1]
local state = redis.call('HGET', job, 'state')
local body = redis.call('HGET', open, id)
if not body then return {'gone'} end
if state ~= 'running' then return {'over'} end
redis.call('ZREM', outbox, id)
return {'yours', body, redis.call('HINCRBY', begun, id, 1)}
