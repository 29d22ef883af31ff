-- What every script on a gateway's commands needs. KEYS[3] to KEYS[5]: records by digest, which also hold the mark of the
-- last write (`v`) and the greatest place (`l`); decided ones by place; and by when they are forgotten.

-- Forgets decided records, at most so many.
local function forget(now, most)
  local old = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', text_of(now), 'LIMIT', 0, most)
  for _, digest in ipairs(old) do
    redis.call('HDEL', KEYS[3], digest)
    redis.call('ZREM', KEYS[4], digest)
    redis.call('ZREM', KEYS[5], digest)
  end
end

-- What a step is decided by: whether the head was none, the clock, the holder, the open commands, the mark, the greatest
-- place, how many fields the records have, and the record.
local function look(gateway, digest)
  local head, bad = head_of(redis.call('HGET', KEYS[1], gateway))
  local now = clock()
  return { bad, now, holder_of(head), redis.call('HGET', KEYS[2], gateway), redis.call('HGET', KEYS[3], 'v'),
    redis.call('HGET', KEYS[3], 'l'), redis.call('HLEN', KEYS[3]), redis.call('HGET', KEYS[3], digest) }
end
