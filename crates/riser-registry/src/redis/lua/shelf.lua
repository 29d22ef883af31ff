-- What every script on a gateway's commands needs. KEYS[3] to KEYS[5]: records by digest, which also hold the mark of the
-- last write (`v`), the greatest place (`l`) and what the decided ones take (`b`); decided ones by place; and by when they are
-- forgotten.

-- Forgets a decided record.
local function drop(digest)
  local bytes = redis.call('HSTRLEN', KEYS[3], digest)
  if redis.call('ZREM', KEYS[4], digest) == 1 then
    redis.call('HINCRBY', KEYS[3], 'b', -bytes)
  end
  redis.call('HDEL', KEYS[3], digest)
  redis.call('ZREM', KEYS[5], digest)
end

-- Forgets decided records, at most so many.
local function forget(now, most)
  local old = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', text_of(now), 'LIMIT', 0, most)
  for _, digest in ipairs(old) do
    drop(digest)
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
