"""The embedded prov-api: model runs, lineage, CSV tools and reports."""
