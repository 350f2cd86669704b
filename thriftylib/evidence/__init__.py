"""What is claimed and what came out: claims, records, counts, bench records, verdicts, tables. No torch."""
