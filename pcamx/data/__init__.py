"""From films as people have them to batches on the device, in five steps.

1. A set (`sets`) lists which films there are, with label, patient and split.
2. `prepare` opens every film once (`files`), draws the lesion marks (`marks`) as masks, and writes
   the store (`store`): only films that decode, with mean and standard deviation.
3. `canvas` decodes the films with DALI, places them on the square canvas, and keeps them.
4. `feed` decides which films make up each batch, augments them, and yields batches.
5. Whoever trains or measures takes the batches; nobody else opens a film.

`phantom` draws a set with known lesions, to try all of it on.
"""
