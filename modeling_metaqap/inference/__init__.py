"""From image files to score records: decoding, engines, the scorer, files of records, pictures, ONNX."""
