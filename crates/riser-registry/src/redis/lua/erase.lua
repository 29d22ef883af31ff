-- Erases all of one gateway. KEYS: heads, open commands, values, records, decided ones, their expiry. ARGV: gateway.
-- Answers 0, whether there was a head, how many values there were, and how many records.

local values, records = redis.call('HLEN', KEYS[3]), redis.call('HLEN', KEYS[4])
-- The description has no path, and is no value.
values = values - redis.call('HEXISTS', KEYS[3], '')
-- The mark of the last write, the greatest place and the bytes are no records.
for _, field in ipairs({ 'v', 'l', 'b' }) do
  records = records - redis.call('HEXISTS', KEYS[4], field)
end
local known = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('UNLINK', KEYS[3], KEYS[4], KEYS[5], KEYS[6])
return { 0, known, values, records }
