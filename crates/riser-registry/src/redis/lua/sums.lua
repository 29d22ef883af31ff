-- What commands of a tenant take: a sum of bytes by names that have an age. KEYS: by age, bytes of each, bytes of all.

local function remove(name)
  local bytes = redis.call('HGET', KEYS[2], name)
  if bytes then
    redis.call('HDEL', KEYS[2], name)
    redis.call('DECRBY', KEYS[3], bytes)
  end
  redis.call('ZREM', KEYS[1], name)
end

-- Removes some of what is older than so many milliseconds, and notes what ARGV holds from there on: names, their ages and
-- their bytes (0: it is gone).
local function note(milliseconds, from)
  local time = redis.call('TIME')
  local oldest = string.format('%.0f', tonumber(time[1]) * 1000 - tonumber(milliseconds))
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', oldest, 'LIMIT', 0, 16)) do
    remove(name)
  end
  for at = from, #ARGV, 3 do
    local name, age, bytes = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    remove(name)
    if bytes ~= '0' then
      redis.call('ZADD', KEYS[1], age, name)
      redis.call('HSET', KEYS[2], name, bytes)
      redis.call('INCRBY', KEYS[3], bytes)
    end
  end
end
