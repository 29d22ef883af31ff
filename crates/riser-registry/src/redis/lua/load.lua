-- Writes all that is to be kept of one gateway, instead of what is there. KEYS: heads, values, open commands, records,
-- decided ones, their expiry. ARGV: gateway, its head or an empty text, its open commands or an empty text, the mark of the
-- last write, the greatest place, how many values there are, of each its path and its text, and of each record its digest,
-- its text, its place and when it is forgotten (0 when it is open). Answers 0.

local gateway = ARGV[1]
for key = 2, 6 do
  if key ~= 3 then
    redis.call('UNLINK', KEYS[key])
  end
end
redis.call('HDEL', KEYS[1], gateway)
redis.call('HDEL', KEYS[3], gateway)
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], gateway, ARGV[2])
end
local records = 7 + 2 * tonumber(ARGV[6])
for at = 7, records - 1, 2 do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
end

local bytes, last = 0, 0
for at = records, #ARGV, 4 do
  local digest, text, place, expiry = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  redis.call('HSET', KEYS[4], digest, text)
  if expiry ~= '0' then
    redis.call('ZADD', KEYS[5], place, digest)
    redis.call('ZADD', KEYS[6], expiry, digest)
    bytes, last = bytes + #text, math.max(last, tonumber(expiry))
  end
end
if records < #ARGV then
  redis.call('HSET', KEYS[4], 'v', ARGV[4], 'l', ARGV[5], 'b', bytes)
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], gateway, ARGV[3])
elseif last > 0 then
  for key = 4, 6 do
    redis.call('PEXPIREAT', KEYS[key], string.format('%.0f', last))
  end
end
return { 0 }
