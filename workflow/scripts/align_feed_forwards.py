"""Find the permutation that aligns each pair of feed-forward sublayers (Eqs. 1 and 2)."""

from functools import partial

from provenance.job import Job
from ffmerge.method.features import Features
from ffmerge.method.permutation import align_all_pairs, save_permutations
from ffmerge.models.memory import give_back_large
from provenance.csv_files import write_csv

if __name__ == "__main__":
    give_back_large()  # permutations on the heap would keep freed memory before them in use
    with Job.from_command_line() as job:
        features = Features(job.input.features)
        pairs = [tuple(pair) for pair in job.params.pairs]
        solved = {}
        towers = features.towers()
        n_all = sum(n * (n - 1) // 2 for n in towers.values())
        n_pairs = len(pairs) * len(towers)
        with job.progress(total=n_pairs, description=f"aligning {n_pairs} of {n_all} pairs") as bar:
            for tower in towers:
                layer = partial(features.layer, tower)
                solved[tower] = {}
                for pair, alignment in align_all_pairs(layer, pairs, workers=job.threads):
                    solved[tower][pair] = alignment
                    bar.update()
        save_permutations(solved, job.output.permutations)
        rows = [
            {
                "tower": tower,
                "anchor": i,
                "layer": j,
                "correlation": alignment.aligned,
                "unaligned_correlation": alignment.unaligned,
            }
            for tower, alignments in solved.items()
            for (i, j), alignment in alignments.items()
        ]
        write_csv(rows, job.output.alignment)
