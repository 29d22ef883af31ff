-- Writes what was decided of a command, if nothing came in between. KEYS as of look. ARGV: gateway, digest, the holder and
-- the mark by which it was decided, the new mark, the record, the open commands, the greatest place, the record's place and
-- when it is forgotten (0 when it is open), how many decided ones are kept, and how many bytes of them.
-- Answers as `look` does when something came in between, and otherwise 2, and the decided ones that had to give way.

local gateway, digest = ARGV[1], ARGV[2]
local head = head_of(redis.call('HGET', KEYS[1], gateway))
local mark = redis.call('HGET', KEYS[3], 'v') or ''
if holder_of(head) ~= ARGV[3] or mark ~= ARGV[4] then
  return look(gateway, digest)
end

local answer = { 2 }
drop(digest)
redis.call('HSET', KEYS[3], 'v', ARGV[5], 'l', ARGV[8], digest, ARGV[6])
if ARGV[10] == '0' then
  redis.call('HINCRBY', KEYS[3], 'b', 0)
else
  redis.call('ZADD', KEYS[4], ARGV[9], digest)
  redis.call('ZADD', KEYS[5], ARGV[10], digest)
  local bytes, many = redis.call('HINCRBY', KEYS[3], 'b', #ARGV[6]), redis.call('ZCARD', KEYS[4])
  while many > tonumber(ARGV[11]) or bytes > tonumber(ARGV[12]) and many > 1 do
    local oldest = redis.call('ZRANGE', KEYS[4], 0, 0)[1]
    drop(oldest)
    answer[#answer + 1] = oldest
    bytes, many = tonumber(redis.call('HGET', KEYS[3], 'b')), many - 1
  end
end
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[2], gateway, ARGV[7])
  for key = 3, 5 do
    redis.call('PERSIST', KEYS[key])
  end
else
  -- Nothing is open, and so all of it goes when the last decided one does, also when nobody comes to forget it.
  redis.call('HDEL', KEYS[2], gateway)
  local last = redis.call('ZREVRANGE', KEYS[5], 0, 0, 'WITHSCORES')[2]
  for key = 3, 5 do
    if last then
      redis.call('PEXPIREAT', KEYS[key], text_of(tonumber(last)))
    end
  end
end
return answer
