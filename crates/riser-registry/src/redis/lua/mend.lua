-- Removes a key that is of another type than it should be. KEYS: the key, and the heads when one of them is worth nothing
-- without it. ARGV: its type, and the gateway of that head. Answers whether it was removed.
-- A gateway whose head is missing is one that the store lost: the edge that holds it asks it for all it has.

local is = redis.call('TYPE', KEYS[1]).ok
if is == 'none' or is == ARGV[1] then
  return 0
end
redis.call('UNLINK', KEYS[1])
if KEYS[2] and redis.call('TYPE', KEYS[2]).ok == 'hash' then
  redis.call('HDEL', KEYS[2], ARGV[2])
end
return 1
