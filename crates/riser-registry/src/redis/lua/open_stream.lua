-- Opens a stream. KEYS: streams, their ends, those at its address. ARGV: its number, its address and text, for how many
-- milliseconds, and how many may be open.
-- Answers 0, and 0 when it is open, 1 when another has the number, 2 when there are too many.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local over = string.format('%.0f', now)
for _, number in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', over)) do
  redis.call('HDEL', KEYS[1], number)
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', over)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', over)

local other = redis.call('HGET', KEYS[1], ARGV[1])
if other and other ~= ARGV[2] then
  return { 0, 1 }
elseif not other and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return { 0, 2 }
end
local ends = string.format('%.0f', now + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ends, ARGV[1])
redis.call('ZADD', KEYS[3], ends, ARGV[1])
-- What is open ends with its last stream, also when nobody comes to forget it.
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
local last_here = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', tonumber(last)))
redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', tonumber(last)))
redis.call('PEXPIREAT', KEYS[3], string.format('%.0f', tonumber(last_here)))
return { 0, 0 }
