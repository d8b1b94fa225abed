"""Durable execution embedded in your Python service: workflows as supervised actors that survive a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.lazily import lazily

if TYPE_CHECKING:
    from actorflow.acting import Terminated as Terminated
    from actorflow.actor import Actor as Actor
    from actorflow.actor import query as query
    from actorflow.actor import volatile as volatile
    from actorflow.address import Address as Address
    from actorflow.address import GiveUp as GiveUp
    from actorflow.address import Landed as Landed
    from actorflow.address import Run as Run
    from actorflow.address import RunAgain as RunAgain
    from actorflow.attempt import StepInfo as StepInfo
    from actorflow.attempt import current_step as current_step
    from actorflow.attempt import heartbeat as heartbeat
    from actorflow.checkpoints import checkpoint as checkpoint
    from actorflow.clock import Duration as Duration
    from actorflow.embedding.blocking import SyncAddress as SyncAddress
    from actorflow.embedding.blocking import SyncClient as SyncClient
    from actorflow.embedding.blocking import SyncRun as SyncRun
    from actorflow.embedding.blocking import SyncRuntime as SyncRuntime
    from actorflow.errors import Abort as Abort
    from actorflow.errors import ActorflowError as ActorflowError
    from actorflow.errors import ActorPaused as ActorPaused
    from actorflow.errors import AskExpired as AskExpired
    from actorflow.errors import AskTimeout as AskTimeout
    from actorflow.errors import BadDefinition as BadDefinition
    from actorflow.errors import BadDuration as BadDuration
    from actorflow.errors import BadKey as BadKey
    from actorflow.errors import CallCycle as CallCycle
    from actorflow.errors import ChildFailed as ChildFailed
    from actorflow.errors import Divergence as Divergence
    from actorflow.errors import Fatal as Fatal
    from actorflow.errors import FateUnknown as FateUnknown
    from actorflow.errors import FenceLost as FenceLost
    from actorflow.errors import ForeignAwait as ForeignAwait
    from actorflow.errors import GaveUp as GaveUp
    from actorflow.errors import HandlerFailed as HandlerFailed
    from actorflow.errors import HandlerTimeout as HandlerTimeout
    from actorflow.errors import InvalidState as InvalidState
    from actorflow.errors import KeyTaken as KeyTaken
    from actorflow.errors import MailboxFull as MailboxFull
    from actorflow.errors import NoResource as NoResource
    from actorflow.errors import NotEncodable as NotEncodable
    from actorflow.errors import NotRunning as NotRunning
    from actorflow.errors import OutsideTurn as OutsideTurn
    from actorflow.errors import RunCancelled as RunCancelled
    from actorflow.errors import RunEnded as RunEnded
    from actorflow.errors import RunPaused as RunPaused
    from actorflow.errors import RunPruned as RunPruned
    from actorflow.errors import RunTimedOut as RunTimedOut
    from actorflow.errors import StepFailed as StepFailed
    from actorflow.errors import StepInsideStep as StepInsideStep
    from actorflow.errors import StepInterrupted as StepInterrupted
    from actorflow.errors import StepTimeout as StepTimeout
    from actorflow.errors import StoreBroken as StoreBroken
    from actorflow.errors import StoreBusy as StoreBusy
    from actorflow.errors import StoreError as StoreError
    from actorflow.errors import StoreStopped as StoreStopped
    from actorflow.errors import StoreTooNew as StoreTooNew
    from actorflow.errors import StoreUnavailable as StoreUnavailable
    from actorflow.errors import TooLarge as TooLarge
    from actorflow.errors import TooManyCalls as TooManyCalls
    from actorflow.errors import Transient as Transient
    from actorflow.errors import UnknownKind as UnknownKind
    from actorflow.errors import UnknownLetter as UnknownLetter
    from actorflow.errors import UnknownMessage as UnknownMessage
    from actorflow.errors import UnknownRun as UnknownRun
    from actorflow.errors import WorkerDied as WorkerDied
    from actorflow.handlers import handler as handler
    from actorflow.message import Message as Message
    from actorflow.policies.cursor import Progress as Progress
    from actorflow.policies.cursor import SetAside as SetAside
    from actorflow.policies.failure import FailureReport as FailureReport
    from actorflow.policies.limits import Limits as Limits
    from actorflow.policies.restarts import Backoff as Backoff
    from actorflow.policies.retry import Retry as Retry
    from actorflow.pool import Pool as Pool
    from actorflow.resources import resource as resource
    from actorflow.resources import resource_of as resource_of
    from actorflow.runtime.client import Client as Client
    from actorflow.runtime.draining import Drained as Drained
    from actorflow.runtime.runtime import Runtime as Runtime
    from actorflow.runtime.watchdog import Stall as Stall
    from actorflow.steps import plain as plain
    from actorflow.steps import step as step
    from actorflow.steps import with_options as with_options
    from actorflow.supervisor import Child as Child
    from actorflow.supervisor import Supervisor as Supervisor
    from actorflow.workflow import Branch as Branch
    from actorflow.workflow import Workflow as Workflow
    from actorflow.workflow import gather as gather
else:
    __getattr__, __dir__, __all__ = lazily(
        __name__,
        {
            "acting": "Terminated",
            "actor": "Actor query volatile",
            "address": "Address GiveUp Landed Run RunAgain",
            "attempt": "StepInfo current_step heartbeat",
            "checkpoints": "checkpoint",
            "clock": "Duration",
            "embedding.blocking": "SyncAddress SyncClient SyncRun SyncRuntime",
            "errors": (
                "Abort ActorflowError ActorPaused AskExpired AskTimeout BadDefinition BadDuration BadKey CallCycle "
                "ChildFailed Divergence Fatal FateUnknown FenceLost ForeignAwait GaveUp HandlerFailed HandlerTimeout "
                "InvalidState KeyTaken MailboxFull NoResource NotEncodable NotRunning OutsideTurn RunCancelled "
                "RunEnded RunPaused RunPruned RunTimedOut StepFailed StepInsideStep StepInterrupted StepTimeout "
                "StoreBroken StoreBusy StoreError StoreStopped StoreTooNew StoreUnavailable TooLarge TooManyCalls "
                "Transient UnknownKind UnknownLetter UnknownMessage UnknownRun WorkerDied"
            ),
            "handlers": "handler",
            "message": "Message",
            "policies.cursor": "Progress SetAside",
            "policies.failure": "FailureReport",
            "policies.limits": "Limits",
            "policies.restarts": "Backoff",
            "policies.retry": "Retry",
            "pool": "Pool",
            "resources": "resource resource_of",
            "runtime.client": "Client",
            "runtime.draining": "Drained",
            "runtime.runtime": "Runtime",
            "runtime.watchdog": "Stall",
            "steps": "plain step with_options",
            "supervisor": "Child Supervisor",
            "workflow": "Branch Workflow gather",
        },
    )

__version__ = "0.1.0"
