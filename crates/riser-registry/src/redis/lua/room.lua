-- Notes what decided commands of a tenant take. KEYS: by age, bytes of each, bytes of all. ARGV: bytes that all may take,
-- bytes that are left when some are given up, most to give up, for how many milliseconds one is kept at all, and of each
-- command its name, when it was accepted and its bytes (0: it is gone).
-- Answers 0, and of those to be given up, the oldest first, their names.

local function remove(name)
  local bytes = redis.call('HGET', KEYS[2], name)
  if bytes then
    redis.call('HDEL', KEYS[2], name)
    redis.call('DECRBY', KEYS[3], bytes)
  end
  redis.call('ZREM', KEYS[1], name)
end

local time = redis.call('TIME')
local oldest = string.format('%.0f', tonumber(time[1]) * 1000 - tonumber(ARGV[4]))
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', oldest, 'LIMIT', 0, 16)) do
  remove(name)
end
for at = 5, #ARGV, 3 do
  local name, accepted, bytes = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  remove(name)
  if bytes ~= '0' then
    redis.call('ZADD', KEYS[1], accepted, name)
    redis.call('HSET', KEYS[2], name, bytes)
    redis.call('INCRBY', KEYS[3], bytes)
  end
end
for key = 1, 3 do
  redis.call('PEXPIRE', KEYS[key], ARGV[4])
end

local answer = { 0 }
local all = tonumber(redis.call('GET', KEYS[3]) or '0')
if all > tonumber(ARGV[1]) then
  for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[3]) - 1)) do
    if all <= tonumber(ARGV[2]) then
      break
    end
    answer[#answer + 1] = name
    all = all - tonumber(redis.call('HGET', KEYS[2], name) or '0')
  end
end
return answer
