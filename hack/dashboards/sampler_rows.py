"""What the samplers of a run do."""

from __future__ import annotations

from hack.dashboards.grafana import Panel, Query, Row
from hack.dashboards.series import SELECTOR, learner, sampler_rate

SAMPLING = Row(
    "Sampling",
    [
        Panel(
            "Tokens/s",
            "Response tokens per second: of whole iterations by the learner's account, and by all samplers now.",
            [
                Query(learner("response_tokens_per_second"), "iterations"),
                Query(sampler_rate("tokens"), "samplers"),
            ],
            least=0,
        ),
        Panel(
            "Verdicts",
            "Graded answers per second by verdict. Timeouts and errors are the grader's and never become rewards.",
            [Query(sampler_rate("answers", "verdict"), "{{verdict}}")],
            stacked=True,
            least=0,
        ),
        Panel(
            "Answers",
            "Mean length of answers in tokens.",
            [Query(learner("response_length_tokens"), "length")],
            least=0,
        ),
        Panel(
            "Truncated answers",
            "Share of answers that met sampler.maxTokens.",
            [Query(learner("truncated_ratio"), "truncated")],
            "percentunit",
            least=0,
            most=1,
        ),
        Panel(
            "Staleness",
            "Age in versions of the policy that sampled, over tokens. Bounded by em.maxStaleness.",
            [Query(learner("staleness_mean"), "mean"), Query(learner("staleness_max"), "max")],
            least=0,
        ),
        Panel(
            "Policy versions",
            "Newest published policy, and the one that each sampler serves.",
            [
                Query(learner("policy_version"), "published"),
                Query(f"empg_sampler_policy_version{{{SELECTOR}}}", "{{pod}}"),
            ],
        ),
        Panel(
            "Units",
            "Units of work per second by how they ended in their sampler.",
            [Query(sampler_rate("units", "outcome"), "{{outcome}}")],
            stacked=True,
            least=0,
        ),
        Panel(
            "Waiting for grades",
            "Answers that wait for their grade. A queue that grows asks for more task.grader.workers.",
            [Query(f"sum(empg_sampler_grades_pending{{{SELECTOR}}})", "answers")],
            least=0,
        ),
        Panel(
            "Weight swaps",
            "Time to verify and load a policy, in which a sampler generates nothing.",
            [
                Query(
                    f"histogram_quantile({quantile}, sum by (le) "
                    f"(rate(empg_sampler_swap_seconds_bucket{{{SELECTOR}}}[1h])))",
                    f"p{quantile * 100:g}",
                )
                for quantile in (0.5, 0.99)
            ],
            "s",
            least=0,
        ),
    ],
)

ENGINES = Row(
    "vLLM engines",
    [
        Panel(
            "Running sequences",
            "Sequences that engines decode, and those that wait for a place.",
            [
                Query(f"sum(vllm:num_requests_running{{{SELECTOR}}})", "running"),
                Query(f"sum(vllm:num_requests_waiting{{{SELECTOR}}})", "waiting"),
            ],
            least=0,
        ),
        Panel(
            "KV cache",
            "Share of each engine's key-value cache in use. At 1 sequences are preempted.",
            [Query(f"vllm:kv_cache_usage_perc{{{SELECTOR}}}", "{{pod}}")],
            "percentunit",
            least=0,
            most=1,
        ),
        Panel(
            "Preemptions",
            "Sequences per second that engines gave up for lack of cache and computed again.",
            [Query(f"sum(rate(vllm:num_preemptions_total{{{SELECTOR}}}[$__rate_interval]))", "preemptions")],
            least=0,
        ),
        Panel(
            "Engine tokens/s",
            "Prompt and response tokens per second over all engines.",
            [
                Query(f"sum(rate(vllm:prompt_tokens_total{{{SELECTOR}}}[$__rate_interval]))", "prompt"),
                Query(f"sum(rate(vllm:generation_tokens_total{{{SELECTOR}}}[$__rate_interval]))", "response"),
            ],
            least=0,
        ),
        Panel(
            "Prefix cache hits",
            "Share of prompt tokens found in the prefix cache; the answers to one prompt share theirs.",
            [
                Query(
                    f"sum(rate(vllm:prefix_cache_hits_total{{{SELECTOR}}}[$__rate_interval])) / "
                    f"sum(rate(vllm:prefix_cache_queries_total{{{SELECTOR}}}[$__rate_interval]))",
                    "hits",
                )
            ],
            "percentunit",
            least=0,
            most=1,
        ),
        Panel(
            "Time per token",
            "Time between two tokens of a sequence.",
            [
                Query(
                    f"histogram_quantile({quantile}, sum by (le) "
                    f"(rate(vllm:inter_token_latency_seconds_bucket{{{SELECTOR}}}[$__rate_interval])))",
                    f"p{quantile * 100:g}",
                )
                for quantile in (0.5, 0.99)
            ],
            "s",
            least=0,
        ),
    ],
)
