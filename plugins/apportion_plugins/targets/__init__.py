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
    texts, json_match, of_models = (f"{home}.{module}" for module in ("texts", "json_match", "models_of_text"))
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
        ("exact_match", f"{texts}:ExactMatch", "1 if the text that the model writes is the target"),
        ("regex", f"{texts}:Regex", "1 if a pattern, or the target, is found in the text that the model writes"),
        ("chrf", f"{texts}:ChrF", "chrF of the text that the model writes against the target, 0 to 100"),
        ("bleu", f"{texts}:BLEU", "BLEU of the text that the model writes against the target, 0 to 100"),
        (
            "json_match",
            f"{json_match}:JSONMatch",
            "1 if the JSON in the text that the model writes equals the target's",
        ),
        (
            "embedding_similarity",
            f"{of_models}:EmbeddingSimilarity",
            "cosine similarity of embeddings of the model's text and the target",
        ),
        ("judge", f"{of_models}:Judge", "what a function of yours says about the text that the model writes"),
    ):
        register(name, factory, summary=summary)
