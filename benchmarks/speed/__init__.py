"""Speed of apportion, Captum, Inseq, shap and context-cite on the same model, prompts and targets, in one run.

    make bench                                    # everything, into benchmarks/results/speed.md
    .venv/bin/python -m benchmarks.speed --case ablation --case occlusion --no-memory --no-growth

Every case is checked before it is timed: if the estimand is the same, the values must agree.
"""
