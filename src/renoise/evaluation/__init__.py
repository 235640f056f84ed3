"""How well inversions and edits do on data sets: readers, metrics as the field computes them, records, tables, plots.

* Edits on PIE-Bench: `renoise.evaluation.pie` reads the data set, `renoise.evaluation.pie_edits` inverts and edits,
  `renoise.evaluation.pie_metrics` scores, `renoise.evaluation.pie_summary` makes tables and contact sheets.
* Reconstruction of captioned pictures at every budget: `renoise.evaluation.captions` reads them,
  `renoise.evaluation.methods` lists what to compare, `renoise.evaluation.reconstruction` measures,
  `renoise.evaluation.tables` and `renoise.evaluation.plots` show.

On the command line: ``renoise bench pie`` and ``renoise bench folder``.  It needs the packages of the extra ``bench``.

`open_batch` gives back what ``renoise batch`` made.
"""

from renoise.evaluation.batches import open_batch

__all__ = ["open_batch"]
