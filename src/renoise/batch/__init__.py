"""Many pictures: what is done with each of them, where they come from, and the folder that the results go to.

    source -> entries -> plan (a folder divided into shards) -> work on batches -> shards -> manifest, summary

`renoise.batch.work` is the one function that works on a batch of pictures.  Whoever drives it, the loop of this process
(`renoise.batch.folder.fill_all`) or the actors of Ray Data (in renoise.apps), asks the folder which shards are
missing and fills each of them.  A shard appears under its final name when it is complete, and not before; the name
follows from what is to be in it.  So whatever is killed, and however often it is started again, every picture is in the
shards once.
"""
