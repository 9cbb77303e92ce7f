"""What is found: printed as it comes, and written down as Markdown."""

import statistics


class Report:
    """Tables, and the targets that they are held against."""

    def __init__(self):
        self.sections = []
        self.targets = []
        self.sound = True

    def title(self, text):
        self.sections.append(f"\n## {text}\n")
        print(f"\n{text}", flush=True)

    def note(self, text):
        self.sections.append(f"\n{text}\n")
        print(f"  {text}", flush=True)

    def table(self, rows):
        """The first row names the columns."""
        head, *body = rows
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
        self.sections.append("\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        for row in rows:
            rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            print("  " + "  ".join([row[0].ljust(widths[0]), *rest]), flush=True)

    def expect(self, what, found, limit):
        """A figure that should be at most `limit`. Missing one makes the run no failure: machines differ."""
        self.targets.append((what, found, limit))

    def wrong(self, what):
        """A wrong answer, an error, a lost event: the run has failed."""
        self.sound = False
        self.note(f"**{what}**")

    def summary(self):
        if self.targets:
            self.title("Targets")
            rows = [["", "found", "at most", ""]]
            for what, found, limit in self.targets:
                rows.append([what, f"{found:.2f}", f"{limit:.2f}", "met" if found <= limit else "MISSED"])
            self.table(rows)

    def markdown(self, heading):
        return f"# {heading}\n" + "".join(self.sections)


def median(results, of):
    return statistics.median(of(result) for result in results)
