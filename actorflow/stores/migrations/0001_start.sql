-- The first schema. Numbered files are never edited once released: a change is another file.
--
-- Payloads are JSON text in blobs: the codec writes bytes and gets the same bytes back, whatever they are. The views at the
-- end show them as text, for people with the sqlite3 shell.

-- One row: what this store is, who may write, and how far it has come.
create table store (
    one         integer primary key check (one = 1),
    store_id    text    not null,
    fence       integer not null,  -- raised by every holder; a commit names the fence it was opened with
    commits     integer not null,  -- raised by a batch that numbers no row: tells, after an error out of COMMIT, whether it is in
    generation  integer not null,  -- raised by every holder and checkpoint; the sidecar has it too (an older copy is noticed)
    created_at  real    not null
);

-- Runs, one row each. Numbers are never used twice (autoincrement), not even after a row is gone.
create table run (
    id          integer primary key autoincrement,
    kind        text    not null,
    key         text    not null,
    status      text    not null,
    reason      text,
    round       integer not null,
    crashes     integer not null,
    seed        integer not null,
    wake_at     real,
    deadline_at real,
    parent      integer,
    detached    integer not null,
    actor       integer not null,
    created_at  real    not null,
    updated_at  real    not null,
    ended_at    real,
    input       blob    not null,
    fields      blob,
    view        blob,
    outcome     blob,
    report      blob,
    input_crc   integer,
    fields_crc  integer,
    view_crc    integer,
    outcome_crc integer,
    report_crc  integer
);
create unique index run_address on run (kind, key);
create index run_status on run (status, actor);
create index run_wake on run (wake_at) where wake_at is not null;
create index run_parent on run (parent) where parent is not null;

-- The journal of all runs, which is the store's log as well. Append-only in the order of its rowid: dense pages, quick inserts.
create table entry (
    seq         integer primary key autoincrement,
    run         integer not null,
    round       integer not null,
    kind        text    not null,
    branch      text    not null,
    name        text    not null,
    n           integer not null,
    status      text    not null,
    attempt     integer not null,
    at          real    not null,
    due_at      real,
    input       blob,
    outcome     blob,
    ref         text,
    crc         integer not null
);
create index entry_of_run on entry (run, round);
create index entry_dead on entry (run, n) where kind = 'dead';
create index entry_closing on entry (run, round) where kind = 'checkpoint' and status = 'ok';

-- Entries that a `retry` made history. Kept apart, so that the journal is only ever appended to.
create table set_aside (
    seq         integer primary key,
    run         integer not null
);
create index set_aside_of_run on set_aside (run);

-- Messages: those to be handled, the dead, and those handled whose key must be known again.
create table message (
    id          integer primary key autoincrement,
    run         integer not null,
    type        text    not null,
    key         text,
    body        blob    not null,
    sender      text    not null,
    sent_at     real    not null,
    due_at      real,
    reply_to    integer,
    state       text    not null,
    answer      blob,
    expires_at  real,
    crc         integer not null,
    answer_crc  integer,
    line        integer            -- its place in the mailbox, if it was a dead letter that was sent again; else its id
);
create unique index message_key on message (run, key) where key is not null;
create index message_of_run on message (run, state);
create index message_dead on message (id) where state = 'dead';
create index message_done on message (run, sent_at) where state = 'done';

-- Where each `each` stands: one row, updated in place.
create table cursor (
    run         integer not null,
    round       integer not null,
    branch      text    not null,
    n           integer not null,
    state       blob    not null,
    crc         integer not null,
    primary key (run, round, branch, n)
) without rowid;

-- Empty. When the disk is full a row is written here and deleted, to learn whether a usual commit still fits.
create table probe (
    bytes       blob    not null
);

-- The same with payloads as text and moments as dates, to be read by people.
create view run_text as
select id, kind, key, status, reason, round, crashes, datetime(wake_at, 'unixepoch') as wake_at, parent, actor,
       datetime(created_at, 'unixepoch') as created_at, datetime(ended_at, 'unixepoch') as ended_at,
       cast(input as text) as input, cast(fields as text) as fields, cast(view as text) as view,
       cast(outcome as text) as outcome, cast(report as text) as report
from run;

create view entry_text as
select seq, run, round, kind, branch, name, n, status, attempt, datetime(at, 'unixepoch') as at,
       datetime(due_at, 'unixepoch') as due_at, cast(input as text) as input, cast(outcome as text) as outcome, ref
from entry;

create view message_text as
select id, run, type, key, cast(body as text) as body, sender, datetime(sent_at, 'unixepoch') as sent_at,
       datetime(due_at, 'unixepoch') as due_at, reply_to, state, cast(answer as text) as answer,
       datetime(expires_at, 'unixepoch') as expires_at
from message;
