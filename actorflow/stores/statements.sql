-- Every statement that the SQLite store runs, but for pragmas and the schema (migrations/).
-- A statement begins at "-- name: " and its second line says what it is for. Where a statement has one group of question
-- marks, it may be run for many rows at once: the group is repeated (`Bulk`). Where that group is the table `new`, one row
-- alone is written without it: its values stand where its columns are named.

-- name: read_progress
-- First of every batch: how far the store has come, or no row if another holder has it.
select commits, (select sum(seq) from sqlite_sequence) from store where one = 1 and fence = :fence

-- name: count_commit
-- Last of a batch: raises the commit counter, if no number was given to a new row since these were.
update store set commits = commits + 1 where one = 1 and (select sum(seq) from sqlite_sequence) is :numbers

-- name: read_store
-- What this store is and how far it has come.
select store_id, fence, commits, generation from store

-- name: create_store
-- The one row, when the schema is new.
insert into store (one, store_id, fence, commits, generation, created_at) values (1, :store_id, 0, 0, 0, :now)

-- name: raise_fence
-- A new holder: from now on earlier fences are worth nothing.
update store set fence = fence + 1, generation = generation + 1 where one = 1

-- name: raise_generation
-- After a checkpoint, so that the database file without its WAL is older than the sidecar says.
update store set generation = generation + 1 where one = 1 and fence = :fence returning generation

-- name: interrupt_turns
-- Runs that were in a turn when the last holder ended: one crash more each, to be looked at now.
update run set crashes = crashes + 1, status = 'waiting', wake_at = 0, updated_at = :now where status = 'running'

-- name: wake_undoing
-- Runs that were undoing go on with it.
update run set wake_at = 0, updated_at = :now where status = 'undoing'

-- name: last_numbers
-- The highest number ever given, by table.
select name, seq from sqlite_sequence

-- name: insert_run
-- New runs.
insert into run (id, kind, key, status, reason, round, crashes, seed, wake_at, deadline_at, parent, detached,
                 actor, created_at, updated_at, ended_at, input, fields, view, outcome, report,
                 input_crc, fields_crc, view_crc, outcome_crc, report_crc)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_entry
-- Append to the journal.
insert into entry (run, round, kind, branch, name, n, status, attempt, at, due_at, input, outcome, ref, crc)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_message
-- Accept messages.
insert into message (id, run, type, key, body, sender, sent_at, due_at, reply_to, state, answer, expires_at, crc, answer_crc)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: set_state
-- Where runs stand.
with new (run, status, reason, wake_at, crashes, at) as (values (?, ?, ?, ?, ?, ?))
update run set status = new.status, reason = new.reason, wake_at = new.wake_at, crashes = new.crashes, updated_at = new.at
from new where run.id = new.run

-- name: wake
-- Waiting runs want attention at a moment, if not earlier; at -1 (URGENT) paused ones, too.
with new (run, at) as (values (?, ?))
update run set wake_at = min(coalesce(run.wake_at, new.at), new.at)
from new where run.id = new.run and (run.status = 'waiting' or (run.status = 'paused' and new.at = -1))

-- name: set_view
-- The fields to look at.
with new (run, view, crc) as (values (?, ?, ?))
update run set view = new.view, view_crc = new.crc from new where run.id = new.run

-- name: set_round
-- New rounds with their fields.
with new (run, round, fields, crc) as (values (?, ?, ?, ?))
update run set round = new.round, fields = new.fields, fields_crc = new.crc from new where run.id = new.run

-- name: set_end
-- Outcomes, reports and ends; what is null is left as it is.
with new (run, outcome, report, ended_at, outcome_crc, report_crc) as (values (?, ?, ?, ?, ?, ?))
update run set outcome = coalesce(new.outcome, run.outcome), outcome_crc = coalesce(new.outcome_crc, run.outcome_crc),
               report = coalesce(new.report, run.report), report_crc = coalesce(new.report_crc, run.report_crc),
               ended_at = coalesce(new.ended_at, run.ended_at)
from new where run.id = new.run

-- name: set_state_and_end
-- Both at once, for the runs of a batch that have both: most ends are.
with new (run, status, reason, wake_at, crashes, at, outcome, report, ended_at, outcome_crc, report_crc) as
    (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
update run set status = new.status, reason = new.reason, wake_at = new.wake_at, crashes = new.crashes, updated_at = new.at,
               outcome = coalesce(new.outcome, run.outcome), outcome_crc = coalesce(new.outcome_crc, run.outcome_crc),
               report = coalesce(new.report, run.report), report_crc = coalesce(new.report_crc, run.report_crc),
               ended_at = coalesce(new.ended_at, run.ended_at)
from new where run.id = new.run

-- name: drop_consumed
-- Messages taken that nobody will ask for again go.
delete from message where id in (values (?)) and key is null and reply_to is null

-- name: keep_consumed
-- The other ones are kept as done, with the answer.
with new (id, answer, crc) as (values (?, ?, ?))
update message set state = 'done', answer = coalesce(new.answer, message.answer),
                   answer_crc = coalesce(new.crc, message.answer_crc)
from new where message.id = new.id and (message.key is not null or message.reply_to is not null)

-- name: set_letters
-- Messages given up and dead letters revived, with the answer of one that was pending and of one that was dead.
with new (id, state, kept, answer, crc, dead_kept, dead_answer, dead_crc, line, dead_line) as
    (values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
update message set state = new.state,
                   answer = case when iif(message.state = 'dead', new.dead_kept, new.kept) then message.answer
                                 else iif(message.state = 'dead', new.dead_answer, new.answer) end,
                   answer_crc = case when iif(message.state = 'dead', new.dead_kept, new.kept) then message.answer_crc
                                     else iif(message.state = 'dead', new.dead_crc, new.crc) end,
                   expires_at = iif(iif(message.state = 'dead', new.dead_line, new.line) is null, message.expires_at, null),
                   line = coalesce(iif(message.state = 'dead', new.dead_line, new.line), message.line)
from new where message.id = new.id and message.state in ('pending', 'dead')

-- name: expire
-- Messages that are done and old enough go, with their keys.
delete from message where id in (
    select message.id from (values (?, ?)) as new
    join message on message.run = new.column1 and message.state = 'done' and message.sent_at < new.column2)

-- name: drop_pending_system
-- What the system sent to a run that ended is dropped.
delete from message where run in (values (?)) and state = 'pending' and substr(type, 1, 1) = '~'

-- name: bury
-- What others sent it and it never took is dead.
update message set state = 'dead' where run in (values (?)) and state = 'pending'

-- name: set_cursor
-- Where an `each` stands.
insert or replace into cursor (run, round, branch, n, state, crc) values (?, ?, ?, ?, ?, ?)

-- name: drop_cursor
-- An `each` is done.
delete from cursor where (run, round, branch, n) in (values (?, ?, ?, ?))

-- name: set_aside
-- Entries that are history from now on; only those of the run that says so.
insert or ignore into set_aside (seq, run)
select entry.seq, entry.run from (values (?, ?)) as new join entry on entry.seq = new.column1 and entry.run = new.column2

-- name: tombstone
-- What is left of a pruned run; touches no row unless it has ended.
update run set reason = null, round = 0, crashes = 0, seed = 0, wake_at = null, deadline_at = null, parent = null, detached = 0,
               input = x'', fields = null, view = null, outcome = null, report = null,
               input_crc = 0, fields_crc = null, view_crc = null, outcome_crc = null, report_crc = null
where id = :run and status in ('completed', 'failed', 'cancelled')

-- name: prune_entries
-- Its journal.
delete from entry where run = :run

-- name: prune_set_aside
-- Which of its entries were set aside.
delete from set_aside where run = :run

-- name: prune_messages
-- Its mailbox.
delete from message where run = :run

-- name: prune_cursors
-- Its cursors.
delete from cursor where run = :run

-- name: write_probe
-- Does as much as a large commit still fit?
insert into probe (bytes) values (zeroblob(:size))

-- name: drop_probe
-- Give the probe's pages back (to this database: they are free for the next commit).
delete from probe

-- name: run_by_id
-- A run with all it has.
select * from run where id = :id

-- name: runs_by_id
-- Several of them.
select * from run where id in (select value from json_each(:runs))

-- name: run_by_address
-- The run under an address.
select * from run where kind = :kind and key = :key

-- name: taken
-- Which of several addresses are in use.
select run.kind, run.key from json_each(:addresses) as wanted
cross join run on run.kind = json_extract(wanted.value, '$[0]') and run.key = json_extract(wanted.value, '$[1]')

-- name: message_by_id
-- Whether that number was given to a message.
select * from message where id = :id

-- name: message_by_key
-- The message that a run accepted under a key.
select * from message where run = :run and key = :key

-- name: folding
-- Those of several runs in whose round a checkpoint is finished.
select distinct run.id from run cross join entry on entry.run = run.id and entry.round = run.round
where run.id in (select value from json_each(:runs)) and entry.kind = 'checkpoint' and entry.status = 'ok'

-- name: closed_scopes
-- Scopes of finished checkpoints of a round.
select branch || '/' || name || '#' || n from entry
where run = :run and round = :round and kind = 'checkpoint' and status = 'ok' and seq not in (select seq from set_aside where run = :run)

-- name: replayed_headers
-- Entries of a round that replay may ask for, without what they carry.
select seq, kind, branch from entry
where run = :run and round = :round and kind not in (select value from json_each(:log_only))
  and seq not in (select seq from set_aside where run = :run)
order by seq

-- name: replayed
-- The same of several runs, with all they carry and in any order; for rounds in which nothing is folded.
select entry.* from run cross join entry on entry.run = run.id and entry.round = run.round
where run.id in (select value from json_each(:runs)) and entry.kind not in (select value from json_each(:log_only))
  and not exists (select 1 from set_aside where set_aside.seq = entry.seq)

-- name: entries_by_seq
-- Entries of which we know the numbers.
select * from entry where seq in (select value from json_each(:seqs)) order by seq

-- name: mailboxes
-- What runs have not handled yet; dead letters that were revived stand where they were put.
select * from message where run in (select value from json_each(:runs)) and state = 'pending' order by coalesce(line, id), id

-- name: cursors
-- Where the `each`es of the rounds of several runs stand.
select cursor.run, cursor.round, branch, n, state, crc from run cross join cursor on cursor.run = run.id and cursor.round = run.round
where run.id in (select value from json_each(:runs)) order by branch, n

-- name: children
-- Runs that several runs started, that go on and belong to them; without payloads.
select id, kind, key, status, reason, round, crashes, seed, wake_at, deadline_at, parent, detached, actor, created_at, updated_at, ended_at, report
from run
where parent in (select value from json_each(:runs)) and detached = 0 and status not in ('completed', 'failed', 'cancelled')
order by id

-- name: due
-- Who wants attention, and when: a page of the index, after the last row of the page before.
select wake_at, id from run where wake_at is not null and (wake_at, id) > (:at, :run) order by wake_at, id limit :limit

-- name: list_runs
-- Runs, newest first, walked by number; without payloads.
select id, kind, key, status, reason, round, crashes, seed, wake_at, deadline_at, parent, detached, actor, created_at, updated_at, ended_at, report
from run
where (:before_id is null or id < :before_id)
  and (:actor is null or actor = :actor) and (:kind is null or kind = :kind) and (:status is null or +status = :status) and (:reason is null or reason = :reason)
  and (:parent is null or parent = :parent) and (:key_prefix is null or instr(key, :key_prefix) = 1)
  and (:created_after is null or created_at > :created_after) and (:created_before is null or created_at < :created_before)
order by id desc limit :limit

-- name: list_runs_by_status
-- The same where a status is given: walked by its index, so that a few paused runs among a million are found at once.
select id, kind, key, status, reason, round, crashes, seed, wake_at, deadline_at, parent, detached, actor, created_at, updated_at, ended_at, report
from run
where status = :status and (:before_id is null or id < :before_id)
  and (:actor is null or actor = :actor) and (:kind is null or kind = :kind) and (:reason is null or reason = :reason)
  and (:parent is null or parent = :parent) and (:key_prefix is null or instr(key, :key_prefix) = 1)
  and (:created_after is null or created_at > :created_after) and (:created_before is null or created_at < :created_before)
order by id desc limit :limit

-- name: list_runs_by_parent
-- The same for the children of a run.
select id, kind, key, status, reason, round, crashes, seed, wake_at, deadline_at, parent, detached, actor, created_at, updated_at, ended_at, report
from run
where parent = :parent and (:before_id is null or id < :before_id)
  and (:actor is null or actor = :actor) and (:kind is null or kind = :kind) and (:status is null or +status = :status) and (:reason is null or reason = :reason)
  and (:key_prefix is null or instr(key, :key_prefix) = 1)
  and (:created_after is null or created_at > :created_after) and (:created_before is null or created_at < :created_before)
order by id desc limit :limit

-- name: counts
-- How many runs there are in each status (the index alone is read).
select status, count(*) from run where (:actor is null or actor = :actor) group by status

-- name: history
-- A page of a run's whole past: numbers from the narrow index first, rows then.
select * from entry where seq in (select seq from entry where run = :run and seq > :after order by seq limit :limit) order by seq

-- name: latest
-- The end of a run's past, backwards over its index: rounds grow with time.
select * from entry where run = :run order by round desc, seq desc limit :limit

-- name: death
-- Why a message was given up, the last time it was.
select * from entry where run = :run and n = :n and kind = 'dead' order by seq desc limit 1

-- name: events
-- A page of the store's log.
select * from entry where seq > :after order by seq limit :limit

-- name: undoable
-- What may have to be undone in a round, and what was undone; folded or not.
select * from entry
where run = :run and round = :round and (kind = 'undo' or (kind in ('step', 'start') and ref is not null))
  and seq not in (select seq from set_aside where run = :run)
order by seq

-- name: dead_letters
-- Messages that nobody handled, oldest first.
select * from message where state = 'dead' and id > :after order by id limit :limit

-- name: dead_letters_of_run
-- Those that were sent to one run.
select * from message where state = 'dead' and run = :run and id > :after order by id limit :limit
