"""What a run learns."""

from __future__ import annotations

from hack.dashboards.grafana import Panel, Query, Row
from hack.dashboards.series import SELECTOR, hourly, learner

LEARNING = Row(
    "Learning",
    [
        Panel(
            "Reward",
            "Mean reward of graded answers per iteration.",
            [Query(learner("reward_mean"), "reward")],
        ),
        Panel(
            "Accuracy",
            "Share of right answers among those that were sampled for training, and greedy accuracy on held-out "
            "problems.",
            [
                Query(learner("accuracy_ratio"), "training"),
                Query(learner("evaluation_accuracy_ratio"), "held out, greedy"),
            ],
            "percentunit",
            least=0,
            most=1,
        ),
        Panel(
            "Entropy",
            "Mean entropy per token in nats. A fast fall to 0 means that the policy stopped exploring.",
            [Query(learner("entropy_nats"), "entropy")],
            least=0,
        ),
        Panel(
            "KL",
            "Divergence of the learner from the sampling policy in nats per token, before the first step.",
            [Query(learner("kl_behaviour_nats"), "KL(sampler, learner)")],
        ),
        Panel(
            "Importance ratio",
            "Probability of a sampled token under the learner over that under the sampler, before the first step. Far "
            "from 1 with staleness 0 means that the two engines compute differently.",
            [
                Query(learner("importance_ratio_min"), "min"),
                Query(learner("importance_ratio_mean"), "mean"),
                Query(learner("importance_ratio_max"), "max"),
            ],
        ),
        Panel(
            "Log-prob mismatch",
            "Mean difference of sampler's and learner's log-probs for the same policy. Bounded by "
            "guards.maxLogprobMismatch.",
            [Query(learner("logprob_mismatch_nats"), "mismatch")],
            least=0,
        ),
        Panel(
            "Loss and gradient",
            "Loss of the M-step, and the largest global gradient norm before clipping.",
            [Query(learner("loss"), "loss"), Query(learner("gradient_norm"), "gradient norm")],
        ),
        Panel(
            "Learning rate",
            "Learning rate of the newest iteration.",
            [Query(learner("learning_rate"), "learning rate")],
            "sci",
        ),
        Panel(
            "Filtered answers",
            "Share of graded answers that the objective's filters left out.",
            [Query(learner("filtered_ratio"), "filtered")],
            "percentunit",
            least=0,
            most=1,
        ),
    ],
)

TIME = Row(
    "Time and trouble",
    [
        Panel(
            "Seconds by phase",
            "Where the newest iteration's time went. With em.maxStaleness 0 sampling and learning take turns; sampling "
            "is then the wait for the last unit.",
            [Query(f"max by (phase) (empg_learner_phase_seconds{{{SELECTOR}}})", "{{phase}}")],
            "s",
            stacked=True,
            least=0,
        ),
        Panel(
            "Lost and repeated work",
            "Void units, iterations repeated after restarts, repeated iterations with other weights than the first "
            "time, answers asked for again and policies that were not fit to be served.",
            [
                Query(hourly("empg_learner_void_units"), "void units"),
                Query(hourly("empg_learner_replayed_iterations"), "replayed iterations"),
                Query(hourly("empg_learner_diverged_replays"), "diverged replays"),
                Query(hourly("empg_sampler_answer_retries"), "retried answers"),
                Query(hourly("empg_sampler_refused_policies"), "refused policies"),
            ],
            least=0,
        ),
        Panel(
            "Iterations",
            "Iterations per hour.",
            [Query(hourly("empg_learner_iterations"), "iterations per hour")],
            least=0,
        ),
    ],
)
