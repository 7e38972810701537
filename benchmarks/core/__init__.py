"""What every video benchmark shares: samples, replay, results on disk, scores, comparison, reports."""
