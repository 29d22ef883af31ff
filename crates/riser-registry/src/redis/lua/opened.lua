-- Notes what open commands of a tenant take. KEYS: by deadline, bytes of each, bytes of all. ARGV: for how many milliseconds
-- after its deadline one may be open at all, and of each command its name, its deadline and its bytes (0: it is not open).
-- Answers 0, and the bytes of all.

local function remove(name)
  local bytes = redis.call('HGET', KEYS[2], name)
  if bytes then
    redis.call('HDEL', KEYS[2], name)
    redis.call('DECRBY', KEYS[3], bytes)
  end
  redis.call('ZREM', KEYS[1], name)
end

local time = redis.call('TIME')
local oldest = string.format('%.0f', tonumber(time[1]) * 1000 - tonumber(ARGV[1]))
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', oldest, 'LIMIT', 0, 16)) do
  remove(name)
end
for at = 2, #ARGV, 3 do
  local name, deadline, bytes = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  remove(name)
  if bytes ~= '0' then
    redis.call('ZADD', KEYS[1], deadline, name)
    redis.call('HSET', KEYS[2], name, bytes)
    redis.call('INCRBY', KEYS[3], bytes)
  end
end
if redis.call('ZCARD', KEYS[1]) == 0 then
  redis.call('UNLINK', KEYS[3])
end
return { 0, tonumber(redis.call('GET', KEYS[3]) or '0') }
