"""Speed side by side, ours against a plain way of the same, in one run: what ``python -m kinelib bench`` prints."""

from kinelib.bench.kimodo import bench_kimodo, kimodo_table, measure_kimodo
from kinelib.bench.zipmo import bench_official, bench_zipmo, count_flops, matmul_flops_per_second, side_by_side

__all__ = [
    "bench_kimodo",
    "bench_official",
    "bench_zipmo",
    "count_flops",
    "kimodo_table",
    "matmul_flops_per_second",
    "measure_kimodo",
    "side_by_side",
]
