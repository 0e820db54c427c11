"""What data may look like, in words: shown in help, documents and errors alike."""

LAYOUTS = """\
digits                       8 x 8 px, of scikit-learn
cifar10                      in --data-dir or BITLINE_DATA, else from the hub
DIR/train/CLASS/*.png        images by split and class; DIR/test or val likewise
DIR/CLASS/*.png              images by class; --split 0.2 sets a fifth apart
DIR/train*.parquet           beside DIR/test*.parquet; or with --split 0.2
FILE.parquet                 with --split 0.2
OWNER/NAME                   of the Hugging Face hub
Tables have a column of images and one of labels, whole numbers or texts;
--image-column and --label-column name them where there are several.
Classes are numbered by their sorted names, or as a table numbers them;
a run's are matched by name."""
"""what `load` and ``--data`` take, in lines of at most 80 characters"""


def layouts() -> str:
    """Return what sources look like in one line, for an error."""
    sources = LAYOUTS.partition("Classes are")[0].replace("texts;\n", "texts, ")
    return "; ".join(" ".join(line.split()) for line in sources.splitlines())
