-- Put an unacknowledged message back into its queue, unless another process was faster.
--
-- KEYS: unacked index, unacked messages, list of the queue
-- ARGV: delivery tag, message
-- Returns: 1 if the message was put back, else 0
-- Atomic: a message that is put back by two processes would run twice, and one that is removed first could be lost.

if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[2])
return 1
