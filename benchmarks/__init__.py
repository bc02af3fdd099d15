"""What the pollers cost, against a bare walk of the same tree and against other watchers.

``python -m benchmarks`` builds the trees, measures and prints tables of ratios
with the bar beside each. It is no test: the machine decides much of it, so it
tells and never fails. What is comparable is the ratio of two numbers of one run.
"""
