"""Names of the files and folders of a recipe's run directory."""

RECIPE, CHIP, RANGES = "recipe.json", "chip.json", "ranges.safetensors"
BEFORE, UNTRAINED, AFTER = "evaluation_before.json", "evaluation_untrained.json", "evaluation.json"
START, FLOAT, ON_CHIP = "start", "float", "chip"
KERNELS, PACKED, CROSSBARS, PRUNING, LEFT = "kernels", "packed", "crossbars", "pruning.json", "left.json"
TRIALS, JOURNAL, FRONT = "trials.json", "trials.journal", "front.json"
