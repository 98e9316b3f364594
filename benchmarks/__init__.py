"""What link_kv costs, beside what the bare stubs and other clients cost, measured in one run.

``python -m benchmarks`` lists the benchmarks. Absolute times are those of one machine: quote the ratios.
"""
