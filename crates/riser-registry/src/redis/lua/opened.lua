-- Notes what open commands of a tenant take. KEYS: by deadline, bytes of each, bytes of all. ARGV: for how many milliseconds
-- after its deadline one may be open at all, and of each command its name, its deadline and its bytes (0: it is not open).
-- Answers 0, and the bytes of all.

note(ARGV[1], 2)
if redis.call('ZCARD', KEYS[1]) == 0 then
  redis.call('UNLINK', KEYS[3])
end
return { 0, tonumber(redis.call('GET', KEYS[3]) or '0') }
