"""Target functions, which define the property of the model's output that is explained."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_targets(register: Register) -> None:
    """Register the target functions of this package."""
    home = "apportion_plugins.targets"
    of_target, of_all, contrast, information = (
        f"{home}.{module}" for module in ("likelihood", "distribution", "contrast", "information")
    )
    for name, factory, summary in (
        ("log_prob", f"{of_target}:LogProb", "log-probability of the target, in nats (default)"),
        ("prob", f"{of_target}:Prob", "probability of the target, and of each token given those before it"),
        ("crossentropy", f"{of_target}:CrossEntropy", "surprisal of the target: minus its log-probability, in nats"),
        ("perplexity", f"{of_target}:Perplexity", "perplexity: exponential of the mean cross-entropy per token"),
        ("logit", f"{of_all}:Logit", "logits of the target tokens, before the softmax"),
        ("entropy", f"{of_all}:Entropy", "entropy of the next-token distributions, in nats"),
        ("top_p_size", f"{of_all}:TopPSize", "number of most likely tokens with total probability top_p"),
        (
            "contrast_log_prob_diff",
            f"{contrast}:ContrastLogProbDiff",
            "log-odds of the target over the contrast",
        ),
        ("contrast_prob", f"{contrast}:ContrastProb", "probability of the contrast"),
        ("contrast_prob_diff", f"{contrast}:ContrastProbDiff", "probability of the target minus that of the contrast"),
        ("contrast_logits", f"{contrast}:ContrastLogits", "logits of the contrast"),
        ("contrast_logits_diff", f"{contrast}:ContrastLogitsDiff", "logits of the target minus those of the contrast"),
        ("pcxmi", f"{information}:PCXMI", "gain in log-probability over a reference prompt, in nats"),
        ("in_context_pvi", f"{information}:InContextPVI", "gain in log-probability over no prompt at all, in bits"),
        ("kl_divergence", f"{information}:KLDivergence", "divergence from the predictions after a reference prompt"),
    ):
        register(name, factory, summary=summary)
