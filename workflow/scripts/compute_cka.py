"""Compare the outputs of all pairs of sublayers by linear CKA (Section 5.5, Appendix C)."""

from functools import partial

from provenance.job import Job
from ffmerge.method.cka import cka_matrix, mean_by_distance, mean_off_diagonal
from ffmerge.method.features import SUBLAYERS, Features
from provenance.csv_files import write_csv

if __name__ == "__main__":
    with Job.from_command_line() as job:
        outputs = {sublayer: Features(job.input.outputs, sublayer) for sublayer in SUBLAYERS}
        towers = outputs["feed_forward"].towers()
        n_pairs = sum(n * (n - 1) // 2 for n in towers.values())
        matrices = {}
        with job.progress(total=n_pairs * len(SUBLAYERS)) as bar:
            for tower, n_layers in towers.items():
                for sublayer, features in outputs.items():
                    layer = partial(features.layer, tower)
                    matrices[tower, sublayer] = cka_matrix(layer, n_layers, bar.update)

        cka = [
            {"tower": tower, "sublayer": sublayer, "i": i, "j": j, "cka": f"{similarity:.6f}"}
            for (tower, sublayer), matrix in matrices.items()
            for i, row in enumerate(matrix.tolist())
            for j, similarity in enumerate(row)
        ]
        write_csv(cka, job.output.cka)
        rows = []
        for tower in towers:
            ff, attention = (
                {"all": mean_off_diagonal(matrix), **mean_by_distance(matrix)}
                for matrix in (matrices[tower, sublayer] for sublayer in SUBLAYERS)
            )
            for distance, similarity in ff.items():
                means = similarity, attention[distance], similarity - attention[distance]
                columns = zip((*SUBLAYERS, "difference"), means, strict=True)
                numbers = {name: f"{mean:.6f}" for name, mean in columns}
                rows.append({"tower": tower, "distance": distance, **numbers})
        write_csv(rows, job.output.similarity)
