-- Defines: final(state), whether a job never leaves this state.

local function final(state) return state == 'done' or state == 'failed' or state == 'cancelled' end
