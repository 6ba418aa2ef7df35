"""`cnn-search data`."""

from pathlib import Path

import click

from search.cli.options import data_option, debug_option


@click.command()
@data_option
@click.option(
    "--pictures", metavar="DIR", type=click.Path(path_type=Path), help="Write two pictures as PNG there."
)
@debug_option
def data(data: Path | None, pictures: Path | None) -> None:
    """Fetch CIFAR-10, verify it, and print a summary."""
    from trainer.data import CLASS_NAMES, default_folder, load
    from trainer.pictures import write_pictures

    cifar10 = load(data)
    click.echo(f"CIFAR-10 in {default_folder() if data is None else data}, digests verified")
    for name, split in (
        ("training", cifar10.train),
        ("validation", cifar10.validation),
        ("test", cifar10.test),
    ):
        click.echo(f"  {name:<11}{len(split):>7,} images of 32x32x3 bytes")
    click.echo(f"  classes    {', '.join(CLASS_NAMES)}")
    for path in [] if pictures is None else write_pictures(cifar10.train, pictures):
        click.echo(f"wrote {path}")
