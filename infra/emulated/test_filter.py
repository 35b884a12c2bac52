"""The filter does what its list says, and says when the list has outlived its reasons."""
import pathlib
import tempfile
import unittest
from unittest import mock

import filter as visible_filter
import templates
from filter import Entry, leave_out

TEMPLATE = """
Resources:
  Queue: {Type: 'AWS::SQS::Queue', Properties: {QueueName: !Sub '${Name}-a', Tags: [{Key: a}]}}
  Topic: {Type: 'AWS::SNS::Topic', Properties: {TopicName: !GetAtt Queue.QueueName}}
  Document:
    Type: AWS::SSM::Document
    Properties: {Content: {'Fn::Transform': {Name: 'AWS::Include', Parameters: {Location: document.json}}}}
"""


class Filter(unittest.TestCase):
    def copied(self, *table):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(visible_filter, "TABLE", list(table)):
            source, target = pathlib.Path(folder) / "source", pathlib.Path(folder) / "target"
            (source / "infra").mkdir(parents=True)
            (source / "infra/one.yaml").write_text(TEMPLATE)
            (source / "infra/document.json").write_text('{"schemaVersion": "2.2"}')
            visible_filter.copy("moto", source, target)
            return templates.read(target / "infra/one.yaml")["Resources"]

    def test_what_is_not_listed_stays_and_is_spelled_out(self):
        resources = self.copied()
        self.assertEqual(resources["Queue"]["Properties"]["QueueName"], {"Fn::Sub": "${Name}-a"})
        self.assertEqual(resources["Topic"]["Properties"]["TopicName"], {"Fn::GetAtt": ["Queue", "QueueName"]})
        self.assertEqual(resources["Document"]["Properties"]["Content"], {"schemaVersion": "2.2"})

    def test_types_properties_and_what_is_put_in_their_place(self):
        resources = self.copied(
            leave_out("moto", "AWS::SNS::Topic", "why"),
            Entry("moto", "one.yaml", ("Resources", "Queue", "Properties", "Tags"), "why"),
            Entry("moto", "one.yaml", ("Resources", "Queue", "Properties", "QueueName"), "why", "b"),
            leave_out("ministack", "AWS::SSM::Document", "of the other emulator"),
        )
        self.assertEqual(sorted(resources), ["Document", "Queue"])
        self.assertEqual(resources["Queue"]["Properties"], {"QueueName": "b"})

    def test_an_entry_that_does_nothing_fails(self):
        for entry in [
            leave_out("moto", "AWS::S3::Bucket", "why"),
            Entry("moto", "two.yaml", ("Resources", "Queue"), "why"),
            Entry("moto", "one.yaml", ("Resources", "Queue", "Properties", "FifoQueue"), "why"),
            Entry("moto", "one.yaml", ("Resources", "Queue", "Type"), "why", "AWS::SQS::Queue"),
        ]:
            with self.assertRaisesRegex(SystemExit, "remove nothing any more"):
                self.copied(entry)


if __name__ == "__main__":
    unittest.main()
